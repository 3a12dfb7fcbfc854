"""What is recorded of who looks at whom."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.clock import Clock
from attnlab.errors import Diverged
from attnlab.interp.capture import ActivationCapture, capture
from attnlab.interp.subject import Subject
from attnlab.layers import SequenceName
from attnlab.objective.base import Objective
from attnlab.ranges import Count, CountOrZero, FewCountOrZero, ranged
from attnlab.run_record.patterns import TABLE, Pattern, Weights
from attnlab.split import IGNORE, Batch

LATENT = "[LATENT {}]"


@ranged
class PatternRecorder(Recorder):
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
        subject: Subject,
        *,
        num_probes: FewCountOrZero = 8,
        max_tokens: Count = 256,
        texts: Sequence[str] = [],
        repeated: FewCountOrZero = 0,
        twins: FewCountOrZero = 0,
        layers: Sequence[CountOrZero] | None = None,
        heads: Sequence[CountOrZero] | None = None,
    ) -> None:
        super().__init__(subject)
        self.num_probes, self.max_tokens = num_probes, max_tokens
        self.read = {text: subject.objective.read(text) for text in texts}
        self.num_repeated, self.num_twins = repeated, twins
        if twins:
            subject.dataset.require_twins()
        self.layers, self.heads = layers, heads
        attention = subject.model.attention_layers()
        _require("layers", layers, len(attention))
        for layer in attention:
            if layers is None or layer.index in layers:
                _require("heads", heads, layer.num_heads, f" in {layer.name}")

    @cached_property
    def probes(self) -> dict[str, Batch]:
        """The sequences that are looked at, by name."""
        subject, dataset = self.subject, self.subject.dataset
        probes = {**self.read, **dataset.probes(self.num_probes)}
        for number in range(self.num_repeated):
            probes[f"repeated-{number}"] = repeated(subject.objective, number, self.max_tokens)
        if self.num_twins:
            for side, split in zip("ab", dataset.twins(), strict=True):
                for number in range(min(self.num_twins, len(split))):
                    probes[f"twin-{number}-{side}"] = split[number]
        return {name: first(unpadded(probe), self.max_tokens) for name, probe in probes.items()}

    def due(self, clock: Clock, step: int) -> bool:
        return clock.records(step)

    def patterns(self, step: int) -> list[Pattern]:
        """Look at every probe now."""
        return [
            pattern
            for name, probe in self.probes.items()
            for pattern in patterns(
                capture(self.subject, probe), self.subject.objective, step, name
            )
        ]

    def rows(self, step: int) -> list[Row]:
        rows = []
        for pattern in self.patterns(step):
            if not np.isfinite(pattern.weights).all():
                raise Diverged(step, f"the patterns after step {step} are no numbers")
            if pattern.attention is not None:
                if self.layers and pattern.attention.index not in self.layers:
                    continue
                if self.heads:
                    pattern = pattern.of(self.heads)
            rows.append(pattern.row())
        return rows


def patterns(
    captured: ActivationCapture, objective: Objective, step: int, probe: str
) -> list[Pattern]:
    """Put what a pass showed into the form of the record: each layer's heads, then influence."""

    def tokens(sequence: SequenceName, size: int) -> list[str]:
        numbers = {"inputs": captured.inputs, "prefix": captured.prefix, "latents": None}[sequence]
        if numbers is None:
            return [LATENT.format(number) for number in range(size)]
        return [objective.inputs[int(number)] for number in numbers]

    made = []
    for layer, weights in captured.weights.items():
        num_queries, num_keys = weights.shape[1:]
        axes = layer.axes
        # Where an encoder reads the inputs, the answer is that of the prefix's last position.
        asked_at = captured.asked_at if axes.queries == "inputs" else num_queries - 1
        keys = tokens(axes.keys, num_keys)
        made.append(
            Pattern(
                *(step, probe, layer, keys, list(range(num_queries)), asked_at),
                data=Weights(weights.cpu().numpy()),
                reading=tokens(axes.queries, num_queries) if axes.crosses else None,
                roles=objective.dataset.token_roles(keys),
            )
        )
    keys, asked_at = tokens("inputs", len(captured.inputs)), captured.asked_at
    shares = Weights(captured.influence[None, None].cpu().numpy())
    roles = objective.dataset.token_roles(keys)
    return [*made, Pattern(step, probe, None, keys, [asked_at], asked_at, shares, roles=roles)]


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


def _require(knob: str, numbers: Sequence[int] | None, count: int, of: str = "") -> None:
    """Raise ValueError for a number of a layer or head that is not there."""
    if numbers is None:
        return
    if not numbers:
        raise ValueError(f"{knob}=[] names none; null keeps all, and callbacks.recorder=null none")
    for number in numbers:
        if not 0 <= number < count:
            counted = f"{count} attention {knob}{of}" if count else f"no attention {knob}{of}"
            raise ValueError(f"{knob}={list(numbers)}: the model has {counted}, counted from 0")
