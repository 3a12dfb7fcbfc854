"""What a command would train, and about how long that would take; nothing is written."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attnlab.analysis.report import Report
from attnlab.config import Cell, Sweep
from attnlab.console import Console
from attnlab.experiment import Experiment
from attnlab.fit import StepSeconds, time_steps
from attnlab.launch.measure_result import flops_per_token, tokens_per_step
from attnlab.launch.run import find_place_of_run
from attnlab.model.base import parameters
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.record import Record, plan_resume

TIMING_SECONDS = 10.0
"""The time for measuring steps in all, by default; what is reached after that is not measured."""
MOST_SECONDS_EACH = 1.0
STATES = {
    "start": "new",
    "skip": "finished",
    "resume": "resumes",
    "retry": "resumes",
    "held": "held",
    "refuse": "refused",
}
"""What `plan_resume` would do, in a word."""


@dataclass(frozen=True)
class PlannedRun:
    """One run that a command asks for."""

    name: str
    """Of its directory."""
    differs: str
    """The overrides that not all runs of the sweep have."""
    state: str
    """new, resumes, finished (is skipped), held by another process, or refused."""
    note: str
    """Why, where the state needs a reason."""
    parameters: int
    flops_per_token: float
    """Of a forward pass, at the training length."""
    steps: int
    """The steps that are left."""
    tokens: int
    """The tokens that these read."""
    seconds: float | None
    """An estimate for these; null where no step was measured."""


@dataclass(frozen=True)
class DryRun(Report):
    """What `attnlab train --dry-run` would train."""

    runs: Sequence[PlannedRun]
    impossible: Mapping[str, Sequence[str]]
    """Why runs are left out with `skip_impossible=true`, and which, by what differs."""
    jobs: int
    """The runs at once."""
    seconds: float | None
    """An estimate for all that is left, with so many at once; null where a part is not known."""


def dry_run(sweep: Sweep, jobs: int = 1, timing_seconds: float = TIMING_SECONDS) -> DryRun:
    """Return what would be trained, with times measured for at most `timing_seconds`.

    Runs that differ in seed, learning rate or length of training cost the same a step, so a step is
    measured once for all of these. The estimate is the steps that are left, and the validations
    that come with them; starting, the evidence and recording come on top.
    """
    cost_by_key: dict[str, _Cost] = {}
    cost_keys = [_cost_key(cell) for cell in sweep.cells]
    seconds_each = min(MOST_SECONDS_EACH, timing_seconds / len(set(cost_keys)))
    spent_seconds = 0.0
    runs = []
    for cell, cost_key in zip(sweep.cells, cost_keys, strict=True):
        experiment = Experiment(cell.config)
        record = find_place_of_run(experiment, Console(stderr=True)).record
        if cost_key not in cost_by_key:
            cost = _measure_cost(experiment)
            if spent_seconds < timing_seconds:
                start = time.perf_counter()
                cost = cost._replace(step_seconds=time_steps(experiment, seconds_each))
                spent_seconds += time.perf_counter() - start
            cost_by_key[cost_key] = cost
        runs.append(_plan_run(cell, experiment, record, cost_by_key[cost_key]))
    known_seconds = [run.seconds for run in runs if run.seconds is not None]
    all_known = len(known_seconds) == len(runs)
    return DryRun(
        runs, sweep.impossible, jobs, math.fsum(known_seconds) / jobs if all_known else None
    )


class _Cost(NamedTuple):
    """What runs cost that differ in nothing that changes it."""

    parameters: int
    flops_per_token: float
    tokens_per_step: int
    step_seconds: StepSeconds | None = None


def _cost_key(cell: Cell) -> str:
    """Return what decides the cost of a step, as text."""
    values = cell.config.values
    dataset = {key: value for key, value in values["dataset"].items() if key != "seed"}
    trainer = {
        key: value
        for key, value in values["trainer"].items()
        if key not in ("max_steps", "val_check_interval")
    }
    sections: list[Any] = [values[key] for key in ("model", "objective", "batch_size", "metric")]
    optimizer = values["optimizer"]["_target_"]
    return json.dumps([*sections, optimizer, dataset, trainer], sort_keys=True)


def _measure_cost(experiment: Experiment) -> _Cost:
    """Measure what a run costs, but for its time."""
    return _Cost(
        parameters(experiment.model), flops_per_token(experiment), tokens_per_step(experiment)
    )


def _plan_run(cell: Cell, experiment: Experiment, record: Record, cost: _Cost) -> PlannedRun:
    """Return what a command would do with a run: the steps that are left, and their cost."""
    plan = plan_resume(record)
    state = STATES[plan.action]
    if state == "refused" and cell.config.values["retry"]:
        state = "resumes"
    checkpoint, _ = newest_checkpoint(record.path)
    first_step = checkpoint.step if checkpoint else 0
    is_over = state in ("finished", "refused")
    num_steps = 0 if is_over else experiment.settings.max_steps - first_step
    return PlannedRun(
        record.name,
        cell.differs,
        state,
        plan.reason if plan.action in ("held", "refuse") else "",
        cost.parameters,
        cost.flops_per_token,
        num_steps,
        num_steps * cost.tokens_per_step,
        _estimate_seconds(experiment, num_steps, cost.step_seconds),
    )


def _estimate_seconds(
    experiment: Experiment, num_steps: int, step_seconds: StepSeconds | None
) -> float | None:
    """Estimate the time of some steps, their validations and the last evaluation of all splits."""
    if num_steps == 0:
        return 0.0
    if step_seconds is None:
        return None
    splits = experiment.dataset.splits
    num_batches = {
        name: math.ceil(len(splits[name]) / experiment.batch_size)
        for name in experiment.dataset.split_names
        if name != "train"
    }
    num_validations = num_steps // experiment.settings.val_check_interval
    num_evaluated_batches = num_validations * num_batches.get("validation", 0)
    num_evaluated_batches += sum(num_batches.values())
    return num_steps * step_seconds.training + num_evaluated_batches * step_seconds.evaluation
