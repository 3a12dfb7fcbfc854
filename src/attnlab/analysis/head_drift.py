"""How far each head moved between the steps at which a run recorded its patterns.

run = Record(Path("runs/pronoun-multihead-2x64-s0-1a2b3c4d5e"))
for layer, moved in drifts(run, "tired").items():
    print(layer.name, moved.steps, moved.values)  # from step to step, (interval, head)
for layer, course in mean_drifts(run).items():
    print(layer.name, course.steps, course.values)  # since the step before, over all probes
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.interp.pattern_stats import drift
from attnlab.layers import AttentionLayer
from attnlab.run_record.head_scores import Course
from attnlab.run_record.layers import Layer
from attnlab.run_record.patterns import Pattern, probes, recorded
from attnlab.run_record.record import Record


class Drift(NamedTuple):
    """How far the heads of a layer moved from each recorded step to the next."""

    steps: list[int]
    """Optimizer steps; interval i ends at steps[i + 1]."""
    values: Float[Tensor, "interval head"]
    """The Jensen-Shannon distance of a row, 0 to 1, mean over queries."""


def drifts(record: Record, probe: str) -> dict[Layer, Drift]:
    """Compare the patterns of one probe at each recorded step with those of the step before.

    By layer, in the order of the record. Weights are read with the record's rounding
    (`attnlab.run_record.patterns.ERROR`) and each row is made to sum to 1 again; a head that stood
    still has 0. A run that recorded once has no interval. Raises LookupError for a probe
    without patterns, ValueError where queries, tokens or heads are not those of the step before.
    """
    by_layer = _by_layer(recorded(record, probe=probe))
    if not by_layer:
        there = ", ".join(probes(record)) or "none"
        raise LookupError(f"{record.name} has no patterns of a probe {probe!r}; there are {there}")
    return {layer: _drift(patterns) for layer, patterns in by_layer.items()}


def mean_drifts(record: Record) -> dict[AttentionLayer, Course]:
    """Compute how far each head of attention moved since the recorded step before, over all probes.

    The mean of `drifts` over the probes that show the head; NaN for a head that none shows. The
    first step has none. Raises LookupError where attention was not recorded at two steps,
    ValueError as `drifts` does.
    """
    by_probe: dict[str, list[Pattern]] = {}
    for pattern in recorded(record):
        if pattern.attention is not None:
            by_probe.setdefault(pattern.probe, []).append(pattern)
    moved: dict[AttentionLayer, dict[int, list[Float[np.ndarray, " head"]]]] = {}
    for patterns in by_probe.values():
        for layer, of_layer in _by_layer(patterns).items():
            assert isinstance(layer, AttentionLayer)
            found, numbers = _drift(of_layer), list(of_layer[0].numbers)
            if max(numbers, default=0) >= layer.num_heads:
                raise ValueError(
                    f"{record.name} recorded patterns of head {max(numbers)} of {layer.path}, "
                    f"which has {layer.num_heads} heads"
                )
            for step, row in zip(found.steps[1:], found.values.numpy(), strict=True):
                heads = np.full(layer.num_heads, np.nan)
                heads[numbers] = row
                moved.setdefault(layer, {}).setdefault(step, []).append(heads)
    if not moved:
        raise LookupError(
            f"{record.name} recorded no patterns of attention at two steps, and a drift is from "
            "one to the next; train with callbacks=default, whose `recorder` keeps them"
        )
    return {layer: _over_probes(by_step) for layer, by_step in moved.items()}


def _over_probes(by_step: dict[int, list[Float[np.ndarray, " head"]]]) -> Course:
    steps = sorted(by_step)
    means = []
    for step in steps:
        rows = np.stack(by_step[step])
        counts = np.isfinite(rows).sum(axis=0)
        means.append(np.where(counts, np.nansum(rows, axis=0) / np.maximum(counts, 1), np.nan))
    return Course(np.array(steps), np.stack(means))


def _by_layer(patterns: Iterable[Pattern]) -> dict[Layer, list[Pattern]]:
    by_layer: dict[Layer, list[Pattern]] = {}
    for pattern in patterns:
        if pattern.layer is not None:
            by_layer.setdefault(pattern.layer, []).append(pattern)
    return by_layer


def _drift(patterns: list[Pattern]) -> Drift:
    first = patterns[0]
    for pattern in patterns:
        for of in ("tokens", "query_at", "numbers"):
            if list(getattr(pattern, of)) != list(getattr(first, of)):
                raise ValueError(
                    f"{pattern.source}: `{of}` of the probe {pattern.probe!r} at step "
                    f"{pattern.step} is not that at step {first.step}; they cannot be compared"
                )
    weights = torch.stack([torch.tensor(pattern.weights) for pattern in patterns])
    total = reduce(weights, "step head query key -> step head query", "sum")
    # A row of padding has no weight at all, and stays so.
    weights = weights / rearrange(total.where(total > 0, 1), "s h q -> s h q 1")
    apart = drift(weights[:-1], weights[1:])
    means = reduce(apart, "interval head query -> interval head", "mean")
    return Drift([pattern.step for pattern in patterns], means)
