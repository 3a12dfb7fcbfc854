"""The metric of a model without each head in turn, and without all selected heads at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnlab.analysis.ablations.request import (
    evaluate_requested_metric,
    layer_names,
    mean_patterns_of_method,
    require_heads,
)
from attnlab.analysis.report import Report
from attnlab.interp.interventions import prune
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class MetricWithout:
    """The metric without a head, or without all heads of a layer."""

    layer: int
    name: str
    head: int | None
    """None stands for all heads of the layer."""
    value: float


@dataclass(frozen=True)
class HeadsWithoutReport(Report):
    """The metric of a model, of the model without each head, and without all selected heads."""

    run: str
    step: int
    split: str
    metric: str
    method: str
    """How a head is taken away: "zero" (its pattern is 0) or "mean" (its mean pattern)."""
    intact: float
    """The metric of the whole model."""
    ablated: Sequence[MetricWithout]
    all_ablated: float | None


def heads_without_report(
    loaded_run: LoadedRun,
    *,
    split: str = "validation",
    metric: str | None = None,
    method: str = "zero",
    heads: Sequence[HeadRef] | None = None,
) -> HeadsWithoutReport:
    """Measure a model without each selected head, and without all heads of each layer.

    A layer is measured only if all its heads are selected, and if it has more than one. With
    `heads` (None: all), the model is also measured without all selected heads at once. Raises
    RequestError for a head, a split, a metric or a method that does not exist.
    """
    selected_heads = require_heads(loaded_run, heads)
    metric, full_values = evaluate_requested_metric(loaded_run, split, metric)
    means = mean_patterns_of_method(loaded_run, split, method)
    names = layer_names(loaded_run)

    def evaluate_without(removed_heads: Iterable[HeadRef]) -> float:
        with prune(loaded_run.model, removed_heads, means):
            return loaded_run.evaluate(split)[metric]

    values_without: list[MetricWithout] = []
    layers = loaded_run.model.attention_layers()
    for layer in dict.fromkeys(layers[head.layer] for head in selected_heads):
        name = names[layer.index]
        layer_heads = [head for head in selected_heads if head.layer == layer.index]
        values_without += [
            MetricWithout(layer.index, name, head.head, evaluate_without([head]))
            for head in layer_heads
        ]
        if set(layer_heads) == set(layer.heads) and len(layer_heads) > 1:
            values_without.append(
                MetricWithout(layer.index, name, None, evaluate_without(layer_heads))
            )
    return HeadsWithoutReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        metric=metric,
        method=method,
        intact=full_values[metric],
        ablated=values_without,
        all_ablated=None if heads is None else evaluate_without(selected_heads),
    )
