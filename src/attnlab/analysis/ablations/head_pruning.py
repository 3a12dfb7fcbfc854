"""A metric as heads are removed one after the other (Michel et al. 2019, fig. 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from attnlab.analysis.ablations.request import (
    evaluate_requested_metric,
    layer_names,
    mean_patterns_of_method,
    require_choice,
    require_heads,
)
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.importance import (
    head_importance,
    loss_without_each,
    order_greedily,
    prune_in_order,
    shuffle_heads,
)
from attnlab.interp.interventions import MeanPatterns
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun

ORDERS = ("gradient", "normalised", "ablation", "greedy")
"""By the gate's gradient, by the gradient over its layer's norm, by the loss without each single
head, or by the loss without it and the heads already removed."""


@dataclass(frozen=True)
class Removal:
    """The metric after one more head is removed; for the whole model, no head is named."""

    removed: int
    layer: int | None
    name: str | None
    head: int | None
    value: float


@dataclass(frozen=True)
class PruningReport(Report):
    """A metric as heads are removed, the least important first, and in random orders."""

    run: str
    step: int
    split: str
    metric: str
    method: str
    """How a head is taken away: "zero" (its pattern is 0) or "mean" (its mean pattern)."""
    order: str
    curve: Sequence[Removal]
    """First the whole model, then after each head that is removed."""
    random: Sequence[Sequence[float]] | None = None
    """The values of the curves in random orders; None where none was requested."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it; `random` only where random orders were requested."""
        fields = super().to_json()
        if self.random is None:
            del fields["random"]
        return fields


def pruning_report(
    loaded_run: LoadedRun,
    *,
    split: str = "validation",
    metric: str | None = None,
    method: str = "zero",
    order: str = "gradient",
    num_random: int | None = None,
    heads: Sequence[HeadRef] | None = None,
) -> PruningReport:
    """Remove the selected heads (None: all) one by one, in `order` and in random orders.

    Raises RequestError for a head, a split, a metric, a method or an order that does not exist.
    """
    selected_heads = require_heads(loaded_run, heads)
    require_choice("order", order, ORDERS)
    if num_random is not None and num_random < 1:
        raise RequestError(f"random {num_random} must be at least 1")
    metric, _ = evaluate_requested_metric(loaded_run, split, metric)
    means = mean_patterns_of_method(loaded_run, split, method)

    def evaluate_metric(metric_name: str) -> float:
        return loaded_run.evaluate(split)[metric_name]

    def pruning_curve(removal_order: Sequence[HeadRef]) -> list[float]:
        return prune_in_order(
            loaded_run.model, removal_order, partial(evaluate_metric, metric), means
        )

    names = layer_names(loaded_run)
    ordered_heads = _order_heads(
        loaded_run, split, order, selected_heads, partial(evaluate_metric, "loss"), means
    )
    full_value, *values_without = pruning_curve(ordered_heads)
    removals = [Removal(0, None, None, None, full_value)]
    for num_removed, (head, value) in enumerate(zip(ordered_heads, values_without, strict=True), 1):
        removals.append(Removal(num_removed, head.layer, names[head.layer], head.head, value))
    random_curves = None
    if num_random is not None:
        random_orders = [shuffle_heads(selected_heads, seed) for seed in range(num_random)]
        random_curves = [pruning_curve(random_order) for random_order in random_orders]
    return PruningReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        metric=metric,
        method=method,
        order=order,
        curve=removals,
        random=random_curves,
    )


def _order_heads(
    loaded_run: LoadedRun,
    split: str,
    order: str,
    selected_heads: Sequence[HeadRef],
    evaluate_loss: Callable[[], float],
    means: MeanPatterns | None,
) -> list[HeadRef]:
    """Return the heads in the order in which they are removed, the least important first."""
    if order == "greedy":
        return order_greedily(loaded_run.model, selected_heads, evaluate_loss, means)
    if order == "ablation":
        importance_by_head = loss_without_each(
            loaded_run.model, selected_heads, evaluate_loss, means
        )
    else:
        gates = head_importance(loaded_run.subject, loaded_run.dataset.splits[split])
        importance_by_head = gates.heads if order == "gradient" else gates.normalised_heads
    return sorted(selected_heads, key=importance_by_head.__getitem__)
