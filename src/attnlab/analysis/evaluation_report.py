"""The loss and the metrics of a run on a split of its own data or of changed data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnlab.analysis.report import Report

if TYPE_CHECKING:
    from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class EvaluationReport(Report):
    """Loss (nats) and metrics on a whole split."""

    run: str
    step: int
    split: str
    examples: int
    """The number of examples of the split."""
    overrides: Sequence[str]
    """The overrides (KEY=VALUE) by which the data differ from the training data."""
    metrics: Mapping[str, float]
    """Numbers by the names of the metrics, "loss" in nats among them."""


def evaluation_report(
    loaded_run: "LoadedRun", split: str | None = None, overrides: Sequence[str] = ()
) -> EvaluationReport:
    """Evaluate a run on a split, by default the split that its dataset reports on.

    `overrides` are those that the run was loaded with. Raises RequestError for an unknown split.
    """
    split = split or loaded_run.dataset.report_split
    metrics = loaded_run.evaluate(split)
    return EvaluationReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        examples=len(loaded_run.dataset.splits[split]),
        overrides=list(overrides),
        metrics=metrics,
    )
