"""Head importance: the gradient of a gate, and the loss without the head (Michel et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnlab.analysis.ablations.request import layer_names, require_heads
from attnlab.analysis.report import Report
from attnlab.interp.importance import head_importance, loss_without_each, rank_correlation
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class HeadImportance:
    """The importance of a head by its gate's gradient and by the loss without it, in nats."""

    layer: int
    name: str
    head: int
    gradient: float
    """The mean of |d loss / d gate| for a gate at 1."""
    normalised: float
    """The gradient over its layer's l2 norm."""
    expected: float
    """The change of the loss if it were linear."""
    value: float
    """The loss without the head."""
    change: float


@dataclass(frozen=True)
class ImportanceReport(Report):
    """The importance of each head by both methods, and the rank correlation of the two."""

    run: str
    step: int
    split: str
    loss: float
    """The loss of the whole model, in nats."""
    heads: Sequence[HeadImportance]
    rank_correlation: float | None
    """Spearman's (1904) of gradient and change; None where one of them is constant."""


def importance_report(
    loaded_run: LoadedRun,
    *,
    split: str = "validation",
    heads: Sequence[HeadRef] | None = None,
) -> ImportanceReport:
    """Measure the importance of the selected heads (None: all) by both methods.

    Raises RequestError for a head that does not exist.
    """
    selected_heads = require_heads(loaded_run, heads)
    full_loss = loaded_run.evaluate(split)["loss"]
    names = layer_names(loaded_run)
    gates = head_importance(loaded_run.subject, loaded_run.dataset.splits[split])
    loss_without_head = loss_without_each(
        loaded_run.model, selected_heads, lambda: loaded_run.evaluate(split)["loss"]
    )
    normalised_gradients = gates.normalised_heads
    head_importances = [
        HeadImportance(
            layer=head.layer,
            name=names[head.layer],
            head=head.head,
            gradient=gates.heads[head],
            normalised=normalised_gradients[head],
            expected=-gates.slopes[head],
            value=loss_without_head[head],
            change=loss_without_head[head] - full_loss,
        )
        for head in selected_heads
    ]
    return ImportanceReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        loss=full_loss,
        heads=head_importances,
        rank_correlation=rank_correlation(
            [head.gradient for head in head_importances],
            [head.change for head in head_importances],
        ),
    )
