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

    def set_bounds(metric: T) -> T:
        metric.bounds = (low, high)  # pyright: ignore[reportFunctionMemberAccess]
        return metric

    return set_bounds


def likeliest_outputs(logits: Float[Tensor, "*label output"]) -> Int[Tensor, "*label"]:
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
    is_counted = targets != IGNORE
    if values.ndim == 1:
        is_counted = is_counted.any(dim=1)
    counted_values = values * is_counted.reshape(
        *is_counted.shape, *[1] * (values.ndim - is_counted.ndim)
    )
    return counted_values.sum(dim=tuple(range(is_counted.ndim))), is_counted.sum()


def finish_metric(metric: Metric, sums: Float[Tensor, "..."], count: Tensor) -> Float[Tensor, ""]:
    """Return the metric over all batches, from its sums and the number of labels or sequences."""
    finish_sums = getattr(metric, "finish", None)
    return finish_sums(sums) if finish_sums else sums / count
