"""What loggers are told of a run: while it trains, or later from its record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attnlab.experiment import Experiment
from attnlab.launch.measure_result import tokens_per_step
from attnlab.logger.base import LoggedRun
from attnlab.run_record.pattern_table import Pattern
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult

NAMED_BY_MODULE = ("model", "objective", "optimizer", "schedule")
"""The sections whose choices have the names of their classes' modules."""
PARTS_OF_A_MODEL = ("mixer", "ffn", "position")
"""The same of a model's parts; all blocks stand in one module."""


def describe_training_run(
    experiment: Experiment, name: str, attempt: int, flops_per_token: float
) -> LoggedRun:
    """Return what loggers are told of a run that is about to train."""
    return LoggedRun(
        name,
        attempt,
        experiment.identity,
        experiment.choices,
        experiment.config.values["sweep"],
        tokens_per_step(experiment),
        flops_per_token,
    )


def describe_recorded_run(record: Record, result: RunResult) -> LoggedRun:
    """Return the same of a finished run, from its record."""
    sweeps = record.annotations.sweeps
    return LoggedRun(
        record.name,
        result.attempt,
        result.identity,
        result.choices or _infer_choices(result),
        sweeps[-1] if sweeps else None,
        result.tokens // max(result.steps, 1),
        result.flops_per_token,
        is_live=False,
    )


def probe_page_builder(run_name: str) -> Callable[[Sequence[Pattern]], str]:
    """Return the function that builds the page of a run's last patterns."""

    def build_page(patterns: Sequence[Pattern]) -> str:
        # Figures are not loaded where no logger shows them.
        from attnlab.report.page import attend_page

        caption = f"After step {patterns[0].step}."
        # The influence on the answer comes last, and its query is where the model answers.
        return attend_page(patterns, caption, run_name, patterns[-1].answer_position)

    return build_page


def _infer_choices(result: RunResult) -> dict[str, str]:
    """Infer the choices of a record that does not state them from the names of its classes."""

    def choices_below(group: str, node: Any) -> Iterator[tuple[str, str]]:
        """Yield the group and the choice of a node, and those of the parts of a model."""
        if not isinstance(node, Mapping):
            return
        target = node.get("_target_")
        if isinstance(target, str) and target.count(".") > 1:
            yield group, target.split(".")[-2]
        for part in PARTS_OF_A_MODEL if group == "model" else ():
            yield from choices_below(f"{group}/{part}", node.get(part))

    choices = {"dataset": result.dataset, "variant": result.variant}
    for section in NAMED_BY_MODULE:
        choices |= dict(choices_below(section, result.identity.get(section)))
    return choices
