"""How far each head moved between the steps at which a run recorded its patterns.

run = Record(Path("runs/pronoun-multihead-2x64-s0-1a2b3c4d5e"))
for layer, moved in compute_drifts(run, "tired").items():
    print(layer.name, moved.steps, moved.values)  # from step to step, (interval, head)
for layer, history in compute_mean_drifts(run).items():
    print(layer.name, history.steps, history.values)  # since the step before, over all probes
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.interp.pattern_stats import pattern_drift
from attnlab.layers import AttentionLayer, Layer
from attnlab.run_record.head_scores import MeasureHistory
from attnlab.run_record.pattern_table import Pattern, load_patterns, probe_names
from attnlab.run_record.record import Record


class Drift(NamedTuple):
    """How far the heads of a layer moved from each recorded step to the next."""

    steps: list[int]
    """Optimizer steps; interval i ends at steps[i + 1]."""
    values: Float[Tensor, "interval head"]
    """The Jensen-Shannon distance of a row, 0 to 1, mean over queries."""


def compute_drifts(record: Record, probe: str) -> dict[Layer, Drift]:
    """Compare the patterns of one probe at each recorded step with those of the step before.

    Returned by layer, in the order of the record. Weights have the record's rounding
    (`attnlab.run_record.pattern_table.ERROR`), and each row is normalised to sum to 1; an unchanged
    head has 0. A run that recorded once has no interval. Raises LookupError for a probe without
    patterns, ValueError where queries, tokens or heads differ from those of the step before.
    """
    patterns_by_layer = _group_by_layer(load_patterns(record, probe=probe))
    if not patterns_by_layer:
        recorded_probes = ", ".join(probe_names(record)) or "none"
        raise LookupError(
            f"{record.name} has no patterns of a probe {probe!r}; there are {recorded_probes}"
        )
    return {layer: _compute_drift(patterns) for layer, patterns in patterns_by_layer.items()}


def compute_mean_drifts(record: Record) -> dict[AttentionLayer, MeasureHistory]:
    """Compute how far each attention head moved since the recorded step before, over all probes.

    The value is the mean of `compute_drifts` over the probes that recorded the head, and NaN for a
    head that no probe recorded; the first step has no value. Raises LookupError where attention was
    not recorded at two steps, ValueError as `compute_drifts` does.
    """
    patterns_by_probe: dict[str, list[Pattern]] = {}
    for pattern in load_patterns(record):
        if pattern.attention is not None:
            patterns_by_probe.setdefault(pattern.probe, []).append(pattern)
    drifts_by_layer: dict[AttentionLayer, dict[int, list[Float[np.ndarray, " head"]]]] = {}
    for patterns in patterns_by_probe.values():
        for layer, layer_patterns in _group_by_layer(patterns).items():
            assert isinstance(layer, AttentionLayer)
            for step, head_drifts in _drifts_of_all_heads(layer, layer_patterns, record.name):
                drifts_by_layer.setdefault(layer, {}).setdefault(step, []).append(head_drifts)
    if not drifts_by_layer:
        raise LookupError(
            f"{record.name} recorded no patterns of attention at two steps, and a drift is from "
            "one to the next; train with callbacks=default, whose `recorder` keeps them"
        )
    return {
        layer: _average_over_probes(drifts_by_step)
        for layer, drifts_by_step in drifts_by_layer.items()
    }


def _drifts_of_all_heads(
    layer: AttentionLayer, patterns: list[Pattern], run: str
) -> Iterator[tuple[int, Float[np.ndarray, " head"]]]:
    """Yield each step with the drift of all heads of a layer; NaN for heads without patterns.

    `patterns` are those of one probe. Raises ValueError for a head that the layer does not have.
    """
    head_numbers = list(patterns[0].numbers)
    steps, values = _compute_drift(patterns)
    if max(head_numbers, default=0) >= layer.num_heads:
        raise ValueError(
            f"{run} recorded patterns of head {max(head_numbers)} of {layer.path}, "
            f"which has {layer.num_heads} heads"
        )
    for step, recorded_drifts in zip(steps[1:], values.numpy(), strict=True):
        all_drifts = np.full(layer.num_heads, np.nan)
        all_drifts[head_numbers] = recorded_drifts
        yield step, all_drifts


def _average_over_probes(
    drifts_by_step: dict[int, list[Float[np.ndarray, " head"]]],
) -> MeasureHistory:
    """Return each head's mean drift by step; NaN where no probe recorded the head."""
    steps = sorted(drifts_by_step)
    means = []
    for step in steps:
        probe_drifts = np.stack(drifts_by_step[step])
        counts = np.isfinite(probe_drifts).sum(axis=0)
        sums = np.nansum(probe_drifts, axis=0)
        means.append(np.where(counts, sums / np.maximum(counts, 1), np.nan))
    return MeasureHistory(np.array(steps), np.stack(means))


def _group_by_layer(patterns: Iterable[Pattern]) -> dict[Layer, list[Pattern]]:
    patterns_by_layer: dict[Layer, list[Pattern]] = {}
    for pattern in patterns:
        if pattern.layer is not None:
            patterns_by_layer.setdefault(pattern.layer, []).append(pattern)
    return patterns_by_layer


def _compute_drift(patterns: list[Pattern]) -> Drift:
    """Compare one layer's patterns of one probe, step to step, by Jensen-Shannon distance."""
    first_pattern = patterns[0]
    for pattern in patterns:
        for field in ("tokens", "query_at", "numbers"):
            if list(getattr(pattern, field)) != list(getattr(first_pattern, field)):
                raise ValueError(
                    f"{pattern.source}: `{field}` of the probe {pattern.probe!r} at step "
                    f"{pattern.step} is not that at step {first_pattern.step}; they cannot be "
                    "compared"
                )
    weights = torch.stack([torch.tensor(pattern.weights) for pattern in patterns])
    row_sums = reduce(weights, "step head query key -> step head query", "sum")
    # A row of padding sums to 0, and must not become NaN.
    weights = weights / rearrange(row_sums.where(row_sums > 0, 1), "s h q -> s h q 1")
    js_distances = pattern_drift(weights[:-1], weights[1:])
    mean_distances = reduce(js_distances, "interval head query -> interval head", "mean")
    return Drift([pattern.step for pattern in patterns], mean_distances)
