"""The interface of metrics, and how their numbers are summed and averaged."""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from attnlab.split import IGNORE

Metric = Callable[[Tensor, Tensor], Tensor]
"""Compares logits (batch, label, output) with targets (batch, label).

Returns a number for each label or for each sequence, whose mean is reported; or several numbers for
each label, from whose sums a method `finish` computes one number. Higher is better, unless the
metric has an attribute `lower_is_better` that is true. An attribute `bounds`, as in (0, 1), states
the range of its values (`bounded`); intervals then stay inside.
"""
T = TypeVar("T", bound=Callable[..., Any])


def bounded(low: float | int, high: float | int) -> Callable[[T], T]:
    """State the range of a metric's values, as a decorator."""

    def state(metric: T) -> T:
        metric.bounds = (low, high)  # pyright: ignore[reportFunctionMemberAccess]
        return metric

    return state


def likeliest(logits: Float[Tensor, "*label output"]) -> Int[Tensor, "*label"]:
    """Return the likeliest output of each label; -1, which is no target, where a logit is nan."""
    # The maximum is nan where any logit is nan.
    max_logits, outputs = logits.max(dim=-1)
    return outputs.masked_fill(max_logits.isnan(), -1)


def tally(
    metric: Metric,
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
) -> tuple[Float[Tensor, "..."], Int[Tensor, ""]]:
    """Return a metric's sum over the labels, or sequences, that count, and the number of these."""
    values = metric(logits, targets)
    counted = targets != IGNORE
    if values.ndim == 1:
        counted = counted.any(dim=1)
    masked = values * counted.reshape(*counted.shape, *[1] * (values.ndim - counted.ndim))
    return masked.sum(dim=tuple(range(counted.ndim))), counted.sum()


def total(metric: Metric, sums: Float[Tensor, "..."], count: Tensor) -> Float[Tensor, ""]:
    """Return the metric over all batches, from its sums and the number of labels or sequences."""
    finish = getattr(metric, "finish", None)
    return finish(sums) if finish else sums / count
