"""How far each head moved between the steps at which a run recorded its patterns.

run = Record(Path("runs/pronoun-multihead-2x64-s0-1a2b3c4d5e"))
for source, moved in drifts(run, "tired").items():
    print(source, moved.steps, moved.values)  # from step to step, (interval, head)
"""

from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnlab.evidence.rows import drift
from attnlab.runs.patterns import INFLUENCE, Pattern, probes, recorded
from attnlab.runs.record import Record


class Drift(NamedTuple):
    """How far the heads of a layer moved from each recorded step to the next."""

    steps: list[int]
    """Optimizer steps; interval i ends at steps[i + 1]."""
    values: Float[Tensor, "interval head"]
    """The Jensen-Shannon distance of a row, 0 to 1, mean over queries."""


def drifts(record: Record, probe: str) -> dict[str, Drift]:
    """Compare the patterns of one probe at each recorded step with those of the step before.

    By the tap that passed them, in the order of the record. Weights are read with the record's
    rounding (`attnlab.runs.patterns.ERROR`) and each row is made to sum to 1 again; a head that
    stood still has 0. A run that recorded once has no interval. Raises LookupError for a probe
    without patterns, ValueError where queries, tokens or heads are not those of the step before.
    """
    by_source: dict[str, list[Pattern]] = {}
    for pattern in recorded(record, probe=probe):
        if pattern.source != INFLUENCE:
            by_source.setdefault(pattern.source, []).append(pattern)
    if not by_source:
        there = ", ".join(probes(record)) or "none"
        raise LookupError(f"{record.name} has no patterns of a probe {probe!r}; there are {there}")
    return {source: _drift(patterns) for source, patterns in by_source.items()}


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
