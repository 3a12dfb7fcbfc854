"""The recorder of attention patterns and influences on fixed probes."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.cadence import Cadence
from attnlab.errors import Diverged
from attnlab.interp.capture import ActivationCapture, capture
from attnlab.interp.subject import Subject
from attnlab.layers import SequenceName
from attnlab.objective.base import Objective
from attnlab.ranges import Count, CountOrZero, FewCountOrZero, ranged
from attnlab.run_record.pattern_table import TABLE, Pattern, PatternWeights
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
        self.text_probes = {text: subject.objective.batch_of_text(text) for text in texts}
        self.num_repeated, self.num_twins = repeated, twins
        if twins:
            subject.dataset.require_contrast_pairs()
        self.layers, self.heads = layers, heads
        attention_layers = subject.model.attention_layers()
        _require_numbers("layers", layers, len(attention_layers))
        for layer in attention_layers:
            if layers is None or layer.index in layers:
                _require_numbers("heads", heads, layer.num_heads, f" in {layer.name}")

    @cached_property
    def probes(self) -> dict[str, Batch]:
        """The probes, by name."""
        subject, dataset = self.subject, self.subject.dataset
        probes = {**self.text_probes, **dataset.probes(self.num_probes)}
        for number in range(self.num_repeated):
            probes[f"repeated-{number}"] = draw_repeated_tokens(
                subject.objective, number, self.max_tokens
            )
        if self.num_twins:
            for side, split in zip("ab", dataset.contrast_pairs(), strict=True):
                for number in range(min(self.num_twins, len(split))):
                    probes[f"twin-{number}-{side}"] = split[number]
        return {
            name: first_tokens(remove_padding(probe), self.max_tokens)
            for name, probe in probes.items()
        }

    def is_due(self, cadence: Cadence, step: int) -> bool:
        return cadence.records(step)

    def patterns(self, step: int) -> list[Pattern]:
        """Return the patterns of every probe now."""
        return [
            pattern
            for name, probe in self.probes.items()
            for pattern in captured_patterns(
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
                    pattern = pattern.select_heads(self.heads)
            rows.append(pattern.to_row())
        return rows


def captured_patterns(
    captured: ActivationCapture, objective: Objective, step: int, probe: str
) -> list[Pattern]:
    """Return what a pass captured as patterns of the record: of each layer, then the influence."""

    def sequence_tokens(sequence: SequenceName, size: int) -> list[str]:
        token_ids = {"inputs": captured.inputs, "prefix": captured.prefix, "latents": None}[
            sequence
        ]
        if token_ids is None:
            return [LATENT.format(number) for number in range(size)]
        return [objective.inputs[int(number)] for number in token_ids]

    probe_patterns = []
    for layer, weights in captured.weights.items():
        num_queries, num_keys = weights.shape[1:]
        axes = layer.axes
        # With an encoder, the model answers at the last position of the prefix.
        answer_position = captured.answer_position if axes.queries == "inputs" else num_queries - 1
        keys = sequence_tokens(axes.keys, num_keys)
        probe_patterns.append(
            Pattern(
                *(step, probe, layer, keys, list(range(num_queries)), answer_position),
                data=PatternWeights(weights.cpu().numpy()),
                query_tokens=sequence_tokens(axes.queries, num_queries) if axes.crosses else None,
                roles=objective.dataset.token_roles(keys),
            )
        )
    keys, answer_position = (
        sequence_tokens("inputs", len(captured.inputs)),
        captured.answer_position,
    )
    influence = PatternWeights(captured.influence[None, None].cpu().numpy())
    roles = objective.dataset.token_roles(keys)
    return [
        *probe_patterns,
        Pattern(
            step, probe, None, keys, [answer_position], answer_position, influence, roles=roles
        ),
    ]


def draw_repeated_tokens(objective: Objective, number: int, max_tokens: int) -> Batch:
    """Draw random tokens of the vocabulary, seeded by `number`, and repeat them once.

    The sequence has 64 tokens, or fewer if the data or `max_tokens` allow fewer. Raises ValueError
    if they allow less than two.
    """
    dataset = objective.dataset
    half_length = min(64, dataset.max_length, max_tokens) // 2
    if half_length < 1:
        raise ValueError("repeated sequences need room for two tokens")
    generator = np.random.Generator(np.random.Philox(key=number))
    tokens = _draw_tokens(generator, len(dataset.tokens), half_length)
    inputs = torch.from_numpy(np.concatenate([tokens, tokens]))[None]
    if dataset.answer_length is None and dataset.splits["validation"][0].at is None:
        return Batch(inputs, torch.full_like(inputs, IGNORE))
    no_target = torch.full((1, 1), IGNORE)
    if dataset.answer_length is not None:
        return Batch(inputs, no_target)
    return Batch(inputs, no_target, torch.full((1, 1), inputs.shape[1] - 1))


def remove_padding(probe: Batch) -> Batch:
    """Return a batch of one sequence without its padding."""
    inputs, targets, label_positions, valid = probe[:4]
    if valid is None:
        return probe
    return Batch(inputs[:, : int(valid.sum())], targets, label_positions)


def first_tokens(probe: Batch, count: int) -> Batch:
    """Return the first `count` tokens of a batch of one sequence, with the labels among them."""
    inputs, targets, label_positions, valid = probe[:4]
    if inputs.shape[1] <= count:
        return probe
    if label_positions is None:
        targets = targets[:, :count]
    else:
        is_within = label_positions[0] < count
        targets, label_positions = targets[:, is_within], label_positions[:, is_within]
        if not is_within.any():
            targets = torch.full_like(probe.targets[:, :1], IGNORE)
            label_positions = torch.full_like(targets, count - 1)
    valid = None if valid is None else valid[:, :count]
    return Batch(inputs[:, :count], targets, label_positions, valid)


def _draw_tokens(
    generator: np.random.Generator, size: int, count: int
) -> Int[np.ndarray, " token"]:
    """Draw `count` token ids below `size`, without repetition if there are enough."""
    if size >= count:
        return generator.permutation(size)[:count]
    return generator.integers(size, size=count)


def _require_numbers(knob: str, numbers: Sequence[int] | None, count: int, owner: str = "") -> None:
    """Raise ValueError for a number of a layer or head that the model does not have."""
    if numbers is None:
        return
    if not numbers:
        raise ValueError(f"{knob}=[] names none; null keeps all, and callbacks.recorder=null none")
    for number in numbers:
        if not 0 <= number < count:
            actual_count = (
                f"{count} attention {knob}{owner}" if count else f"no attention {knob}{owner}"
            )
            raise ValueError(
                f"{knob}={list(numbers)}: the model has {actual_count}, counted from 0"
            )
