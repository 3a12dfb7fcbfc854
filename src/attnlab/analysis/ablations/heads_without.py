"""What is lost without each head, one at a time, and without all that are chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnlab.analysis.ablations.request import (
    chosen_metric,
    layer_names,
    reference_means,
    require_heads,
)
from attnlab.analysis.report import Report
from attnlab.interp.interventions import prune
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class Without:
    """The metric without a head, or without all heads of a layer."""

    layer: int
    name: str
    head: int | None
    """None: all heads of the layer."""
    value: float


@dataclass(frozen=True)
class HeadsWithoutReport(Report):
    """The metric of a model, without each of its heads, and without all that were chosen."""

    run: str
    step: int
    split: str
    metric: str
    method: str
    whole: float
    without: Sequence[Without]
    together: float | None


def heads_without(
    loaded_run: LoadedRun,
    *,
    split: str = "validation",
    metric: str | None = None,
    method: str = "zero",
    heads: Sequence[HeadRef] | None = None,
) -> HeadsWithoutReport:
    """Measure a model without each head, and without each layer all of whose heads are chosen.

    Where heads are chosen (None: all, one at a time), also without all of them at once. A layer of
    one head is the same as its head, and is measured once. Raises RequestError for what is not
    there.
    """
    chosen = require_heads(loaded_run, heads)
    metric, values = chosen_metric(loaded_run, split, metric)
    means = reference_means(loaded_run, split, method)
    names = layer_names(loaded_run)

    def value(removed: Iterable[HeadRef]) -> float:
        with prune(loaded_run.model, removed, means):
            return loaded_run.evaluate(split)[metric]

    without: list[Without] = []
    layers = loaded_run.model.attention_layers()
    for layer in dict.fromkeys(layers[head.layer] for head in chosen):
        own, name = [head for head in chosen if head.layer == layer.index], names[layer.index]
        without += [Without(layer.index, name, head.head, value([head])) for head in own]
        if set(own) == set(layer.heads) and len(own) > 1:
            without.append(Without(layer.index, name, None, value(own)))
    return HeadsWithoutReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        metric=metric,
        method=method,
        whole=values[metric],
        without=without,
        together=None if heads is None else value(chosen),
    )
