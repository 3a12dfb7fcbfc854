"""What is recorded of who looks at whom."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int

from attnlab.callbacks.clock import Clock
from attnlab.callbacks.keeper import Keeper, Row
from attnlab.evidence.axes import Sequence as Axis
from attnlab.evidence.look import Seen
from attnlab.objective.base import Objective
from attnlab.ranges import Count, CountOrZero, FewCountOrZero, ranged
from attnlab.runs.patterns import INFLUENCE, TABLE, Pattern
from attnlab.split import IGNORE, Batch
from attnlab.training import Diverged

LATENT = "[LATENT {}]"


@ranged
class Recorder(Keeper):
    """Keeps the patterns of sequences that stay the same over the whole run.

    They are `texts` of one's own; the dataset's first `num_probes`; so many `repeated` sequences of
    random tokens, the second half of which is the first again (Olsson et al. 2022 find induction
    heads on such); and the first so many pairs of `twins`, where the dataset has them. A longer
    sequence is cut to its first `max_tokens`. Of attention all `layers` and `heads`, or those of
    these numbers, counted from 0 as `attnlab ablate` does; what other mixers mix is kept whole.
    """

    table = TABLE

    def __init__(
        self,
        objective: Objective,
        look: Callable[[Batch], Seen],
        there: Mapping[str, int | None],
        *,
        num_probes: FewCountOrZero = 8,
        max_tokens: Count = 256,
        texts: Sequence[str] = [],
        repeated: FewCountOrZero = 0,
        twins: FewCountOrZero = 0,
        layers: Sequence[CountOrZero] | None = None,
        heads: Sequence[CountOrZero] | None = None,
    ) -> None:
        self.objective, self.look = objective, look
        self.num_probes, self.max_tokens = num_probes, max_tokens
        self.read = {text: objective.read(text) for text in texts}
        self.num_repeated, self.num_twins = repeated, twins
        if twins:
            objective.dataset.require_twins()
        self.layers = _chosen("layers", layers, list(there))
        self.heads = heads
        for path in self.layers or there:
            count = there[path]
            if count is not None:
                _chosen("heads", heads, range(count), f" in {path}")

    @cached_property
    def probes(self) -> dict[str, Batch]:
        """What is looked at, by name."""
        dataset = self.objective.dataset
        found = {**self.read, **dataset.probes(self.num_probes)}
        for number in range(self.num_repeated):
            found[f"repeated-{number}"] = repeated(self.objective, number, self.max_tokens)
        if self.num_twins:
            for side, split in zip("ab", dataset.twins(), strict=True):
                for number in range(min(self.num_twins, len(split))):
                    found[f"twin-{number}-{side}"] = split[number]
        return {name: first(unpadded(probe), self.max_tokens) for name, probe in found.items()}

    def due(self, clock: Clock, step: int) -> bool:
        return clock.records(step)

    def record(self, step: int) -> list[Pattern]:
        """See every probe now."""
        return [
            pattern
            for name, probe in self.probes.items()
            for pattern in patterns(self.look(probe), self.objective.inputs, step, name)
        ]

    def rows(self, step: int) -> list[Row]:
        kept = []
        for pattern in self.record(step):
            if not np.isfinite(pattern.weights).all():
                raise Diverged(step, f"the patterns after step {step} are no numbers")
            if pattern.is_attention:
                if self.layers and pattern.source.removesuffix(".pattern") not in self.layers:
                    continue
                if self.heads:
                    pattern = pattern.of(self.heads)
            kept.append(pattern.row())
        return kept


def patterns(seen: Seen, vocabulary: Sequence[str], step: int, probe: str) -> list[Pattern]:
    """Put what a pass showed into the form of the record: each layer's heads, then influence."""

    def names(axis: Axis, size: int) -> list[str]:
        tokens = {"inputs": seen.inputs, "prefix": seen.prefix, "latents": None}[axis]
        if tokens is None:
            return [LATENT.format(number) for number in range(size)]
        return [vocabulary[int(token)] for token in tokens]

    made = []
    for source, (weights, axes) in seen.maps.items():
        num_queries, num_keys = weights.shape[1:]
        whole, reading = list(range(num_queries)), None
        # Where an encoder reads the inputs, the answer is that of the prefix's last position.
        asked = seen.asked_at if axes.queries == "inputs" else num_queries - 1
        if axes.across:
            reading = names(axes.queries, num_queries)
        keys = names(axes.keys, num_keys)
        array = weights.cpu().numpy()
        made.append(Pattern(step, probe, source, keys, whole, asked, array, reading))
    shares = seen.influence[None, None].cpu().numpy()
    tokens, at = names("inputs", len(seen.inputs)), seen.asked_at
    made.append(Pattern(step, probe, INFLUENCE, tokens, [at], at, shares))
    return made


def repeated(objective: Objective, number: int, max_tokens: int) -> Batch:
    """Draw tokens of the data at random, and say them twice; what stands there hangs on `number`.

    Of 64 tokens, or fewer where the data or `max_tokens` have fewer. Raises ValueError for data
    with room for less than two.
    """
    dataset = objective.dataset
    half = min(64, dataset.max_length, max_tokens) // 2
    if half < 1:
        raise ValueError("repeated sequences need room for two tokens")
    draw = np.random.Generator(np.random.Philox(key=number))
    tokens = _drawn(draw, len(dataset.tokens), half)
    inputs = torch.from_numpy(np.concatenate([tokens, tokens]))[None]
    if dataset.answer_length is None and dataset.splits["validation"][0].at is None:
        return Batch(inputs, torch.full_like(inputs, IGNORE))
    nothing = torch.full((1, 1), IGNORE)
    if dataset.answer_length is not None:
        return Batch(inputs, nothing)
    return Batch(inputs, nothing, torch.full((1, 1), inputs.shape[1] - 1))


def unpadded(probe: Batch) -> Batch:
    """Leave the padding of a batch of one out, and the labels that are not asked."""
    inputs, targets, at, valid = probe[:4]
    if valid is None:
        return probe
    return Batch(inputs[:, : int(valid.sum())], targets, at)


def first(probe: Batch, count: int) -> Batch:
    """Keep the first tokens of a batch of one, and the labels among them, if there are any."""
    inputs, targets, at, valid = probe[:4]
    if inputs.shape[1] <= count:
        return probe
    if at is None:
        targets = targets[:, :count]
    else:
        kept = at[0] < count
        targets, at = targets[:, kept], at[:, kept]
        if not kept.any():
            targets = torch.full_like(probe.targets[:, :1], IGNORE)
            at = torch.full_like(targets, count - 1)
    return Batch(inputs[:, :count], targets, at, None if valid is None else valid[:, :count])


def _drawn(draw: np.random.Generator, size: int, count: int) -> Int[np.ndarray, " token"]:
    """Draw tokens, each at most once where there are enough."""
    return draw.permutation(size)[:count] if size >= count else draw.integers(size, size=count)


def _chosen(knob: str, given: Sequence[int] | None, there: Sequence, of: str = "") -> list | None:
    """Take what the numbers name. Raises ValueError for one that is not there."""
    if given is None:
        return None
    if not given:
        raise ValueError(f"{knob}=[] names none; null keeps all, and callbacks.recorder=null none")
    for number in given:
        if not 0 <= number < len(there):
            counted = f"{len(there)} attention {knob}{of}" if there else f"no attention {knob}{of}"
            raise ValueError(f"{knob}={list(given)}: the model has {counted}, counted from 0")
    return [there[number] for number in given]
