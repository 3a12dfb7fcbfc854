"""What the gradient of a gate says of a head, beside the loss without it (Michel et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnlab.analysis.ablations.request import layer_names, require_heads
from attnlab.analysis.report import Report
from attnlab.interp.importance import alone, importance, rank_correlation
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class HeadImportance:
    """A head, by the gradient of its gate and by the loss without it, in nats."""

    layer: int
    name: str
    head: int
    gradient: float
    """Of a gate at 1: the mean of |d loss / d gate|."""
    normalised: float
    """That over its layer's l2 norm."""
    expected: float
    """The change of the loss if it were linear."""
    value: float
    """The loss without the head."""
    change: float


@dataclass(frozen=True)
class ImportanceReport(Report):
    """Both numbers of each head, and how alike the two orders are."""

    run: str
    step: int
    split: str
    loss: float
    """Of the whole model, nats."""
    heads: Sequence[HeadImportance]
    rank_correlation: float | None
    """Of gradient and change (Spearman 1904); None where one has no order."""


def importance_report(
    loaded_run: LoadedRun,
    *,
    split: str = "validation",
    heads: Sequence[HeadRef] | None = None,
) -> ImportanceReport:
    """Measure each chosen head (None: all) both ways.

    Raises RequestError for what is not there.
    """
    chosen = require_heads(loaded_run, heads)
    whole, names = loaded_run.evaluate(split)["loss"], layer_names(loaded_run)
    gates = importance(loaded_run.subject, loaded_run.dataset.splits[split])
    losses = alone(loaded_run.model, chosen, lambda: loaded_run.evaluate(split)["loss"])
    normalised = gates.normalised
    rows = [
        HeadImportance(
            layer=head.layer,
            name=names[head.layer],
            head=head.head,
            gradient=gates.heads[head],
            normalised=normalised[head],
            expected=-gates.slopes[head],
            value=losses[head],
            change=losses[head] - whole,
        )
        for head in chosen
    ]
    correlation = rank_correlation([row.gradient for row in rows], [row.change for row in rows])
    name, step = loaded_run.record.name, loaded_run.step
    return ImportanceReport(name, step, split, whole, rows, correlation)
