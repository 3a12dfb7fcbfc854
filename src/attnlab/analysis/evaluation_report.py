"""What a run measures on a split, of the data that it was trained on or of others.

JSON has schema, run, step, split, examples, overrides [KEY=VALUE] and metrics {name: number}.
"""

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
    """How many the split has."""
    overrides: Sequence[str]
    """How the data differ from those of the training."""
    metrics: Mapping[str, float]


def evaluation_report(
    loaded_run: "LoadedRun", split: str | None = None, overrides: Sequence[str] = ()
) -> EvaluationReport:
    """Return what a run measures on a split, by default the one that its data report.

    `overrides` are those that the run was loaded with. Raises RequestError where the data have no
    such split.
    """
    split = split or loaded_run.dataset.reported
    metrics = loaded_run.evaluate(split)
    return EvaluationReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        split=split,
        examples=len(loaded_run.dataset.splits[split]),
        overrides=list(overrides),
        metrics=metrics,
    )
