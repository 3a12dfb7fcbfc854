"""What loggers are told of a run: while it trains, or later from its record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attnlab.experiment import Experiment
from attnlab.launch.result import tokens_per_step
from attnlab.logger.base import LoggedRun
from attnlab.run_record.patterns import Pattern
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult

NAMED_BY_MODULE = ("model", "objective", "optimizer", "schedule")
"""The sections whose choices have the names of their classes' modules."""
PARTS_OF_A_MODEL = ("mixer", "ffn", "position")
"""The same of a model's parts; all blocks stand in one module."""


def training_run(
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


def recorded_run(record: Record, result: RunResult) -> LoggedRun:
    """Return the same of a finished run, from its record."""
    sweeps = record.annotations.sweeps
    return LoggedRun(
        record.name,
        result.attempt,
        result.identity,
        result.choices or _inferred_choices(result),
        sweeps[-1] if sweeps else None,
        result.tokens // max(result.steps, 1),
        result.flops_per_token,
        is_live=False,
    )


def probe_page(name: str) -> Callable[[Sequence[Pattern]], str]:
    """Return the function that builds the page of a run's last patterns."""

    def page(patterns: Sequence[Pattern]) -> str:
        # Figures are not loaded where no logger shows them.
        from attnlab.report.page import attend_page

        caption = f"After step {patterns[0].step}."
        # The influence on the answer comes last, and its query is where the model answers.
        return attend_page(patterns, caption, name, patterns[-1].answer_position)

    return page


def _inferred_choices(result: RunResult) -> dict[str, str]:
    """Infer the choices of a record that does not state them from the names of its classes."""

    def inferred(group: str, node: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(node, Mapping):
            return
        if isinstance(target := node.get("_target_"), str) and target.count(".") > 1:
            yield group, target.split(".")[-2]
        for key in PARTS_OF_A_MODEL if group == "model" else ():
            yield from inferred(f"{group}/{key}", node.get(key))

    sections = {group: result.identity.get(group) for group in NAMED_BY_MODULE}
    choices = {k: v for group, node in sections.items() for k, v in inferred(group, node)}
    return {"dataset": result.dataset, "variant": result.variant, **choices}
