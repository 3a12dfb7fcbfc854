"""What a metric is, and how its numbers are put together."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.split import IGNORE

Metric = Callable[[Tensor, Tensor], Tensor]
"""Judges logits (batch, label, output) by targets (batch, label).

Gives a number for each label or for each sequence, whose mean is reported; or several numbers for
each label, whose sums a method `finish` makes one number of. More is better, unless it has an
attribute `lower_is_better` that is true.
"""


def likeliest(logits: Float[Tensor, "*label output"]) -> Int[Tensor, "*label"]:
    """Return the likeliest output of each label; -1, which is no target, where one is no number."""
    # The maximum is no number where any output is none.
    best, output = logits.max(dim=-1)
    return output.masked_fill(best.isnan(), -1)


def tally(
    metric: Metric,
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
) -> tuple[Float[Tensor, "..."], Int[Tensor, ""]]:
    """Sum a metric over what counts of a batch, and say how many labels or sequences that is."""
    values = metric(logits, targets)
    counted = targets != IGNORE
    if values.ndim == 1:
        counted = counted.any(dim=1)
    masked = values * counted.reshape(*counted.shape, *[1] * (values.ndim - counted.ndim))
    return masked.sum(dim=tuple(range(counted.ndim))), counted.sum()


def total(metric: Metric, sums: Float[Tensor, "..."], count: Tensor) -> Float[Tensor, ""]:
    """Give the metric of all that was summed."""
    finish = getattr(metric, "finish", None)
    return finish(sums) if finish else sums / count
