"""What is left of a metric as heads are removed one by one (Michel et al. 2019, fig. 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from attnlab.analysis.ablations.request import (
    chosen_metric,
    layer_names,
    reference_means,
    require_choice,
    require_heads,
)
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.importance import alone, greedy, importance, pruning, shuffled
from attnlab.interp.interventions import Means
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun

ORDERS = ("gradient", "normalised", "ablation", "greedy")
"""By the gate's gradient, by that over its layer's norm, by the loss without each head alone, or by
the loss without it and those that are gone."""


@dataclass(frozen=True)
class Removal:
    """The metric after one more head is removed; of the whole model, no head is named."""

    removed: int
    layer: int | None
    name: str | None
    head: int | None
    value: float


@dataclass(frozen=True)
class PruningReport(Report):
    """A metric as heads are removed, the least needed first, and in random orders."""

    run: str
    step: int
    split: str
    metric: str
    method: str
    order: str
    curve: Sequence[Removal]
    """First of the whole model, then after each head that is removed."""
    random: Sequence[Sequence[float]] | None = None
    """The values of such curves in orders by chance; None where none was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it; `random` is there where it was asked for."""
        fields = super().to_json()
        return (
            fields if self.random is not None else {k: fields[k] for k in fields if k != "random"}
        )


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
    """Remove the chosen heads (None: all) in their order, and in so many random ones.

    Raises RequestError for what is not there.
    """
    chosen = require_heads(loaded_run, heads)
    require_choice("order", order, ORDERS)
    if num_random is not None and num_random < 1:
        raise RequestError(f"--random {num_random} must be at least 1")
    metric, _ = chosen_metric(loaded_run, split, metric)
    means = reference_means(loaded_run, split, method)

    def measure(name: str) -> float:
        return loaded_run.evaluate(split)[name]

    def curve(removed: Sequence[HeadRef]) -> list[float]:
        return pruning(loaded_run.model, removed, partial(measure, metric), means)

    names = layer_names(loaded_run)
    ordered = _ordered(loaded_run, split, order, chosen, partial(measure, "loss"), means)
    whole, *left = curve(ordered)
    removals = [Removal(0, None, None, None, whole)]
    for count, (head, value) in enumerate(zip(ordered, left, strict=True), 1):
        removals.append(Removal(count, head.layer, names[head.layer], head.head, value))
    seeds = None if num_random is None else range(num_random)
    return PruningReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        metric=metric,
        method=method,
        order=order,
        curve=removals,
        random=None if seeds is None else [curve(shuffled(chosen, seed)) for seed in seeds],
    )


def _ordered(
    loaded_run: LoadedRun,
    split: str,
    order: str,
    chosen: Sequence[HeadRef],
    loss: Callable[[], float],
    means: Means | None,
) -> list[HeadRef]:
    """Return the heads in the order in which they are removed, the least needed first."""
    if order == "greedy":
        return greedy(loaded_run.model, chosen, loss, means)
    if order == "ablation":
        return sorted(chosen, key=alone(loaded_run.model, chosen, loss, means).__getitem__)
    gates = importance(loaded_run.subject, loaded_run.dataset.splits[split])
    by_head = gates.heads if order == "gradient" else gates.normalised
    return sorted(chosen, key=by_head.__getitem__)
