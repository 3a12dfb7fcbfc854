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
from attnlab.launch.result import flops_per_token, tokens_per_step
from attnlab.launch.run import place_of_run
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
    spent = 0.0
    runs = []
    for cell, cost_key in zip(sweep.cells, cost_keys, strict=True):
        experiment = Experiment(cell.config)
        record = place_of_run(experiment, Console(stderr=True)).record
        if cost_key not in cost_by_key:
            cost = _measure(experiment)
            if spent < timing_seconds:
                start = time.perf_counter()
                cost = cost._replace(seconds=time_steps(experiment, seconds_each))
                spent += time.perf_counter() - start
            cost_by_key[cost_key] = cost
        runs.append(_planned_run(cell, experiment, record, cost_by_key[cost_key]))
    times = [run.seconds for run in runs]
    seconds = None if None in times else math.fsum(t for t in times if t is not None) / jobs
    return DryRun(runs, sweep.impossible, jobs, seconds)


class _Cost(NamedTuple):
    """What runs cost that differ in nothing that changes it."""

    parameters: int
    flops_per_token: float
    tokens_per_step: int
    seconds: StepSeconds | None = None


def _cost_key(cell: Cell) -> str:
    """Return what decides the cost of a step, as text."""
    values = cell.config.values
    dataset = {key: value for key, value in values["dataset"].items() if key != "seed"}
    trainer = {
        key: value
        for key, value in values["trainer"].items()
        if key not in ("max_steps", "val_check_interval")
    }
    parts: list[Any] = [values[key] for key in ("model", "objective", "batch_size", "metric")]
    return json.dumps([*parts, values["optimizer"]["_target_"], dataset, trainer], sort_keys=True)


def _measure(experiment: Experiment) -> _Cost:
    """Measure what a run costs, but for its time."""
    return _Cost(
        parameters(experiment.model), flops_per_token(experiment), tokens_per_step(experiment)
    )


def _planned_run(cell: Cell, experiment: Experiment, record: Record, cost: _Cost) -> PlannedRun:
    plan = plan_resume(record)
    state = STATES[plan.action]
    if state == "refused" and cell.config.values["retry"]:
        state = "resumes"
    checkpoint, _ = newest_checkpoint(record.path)
    first_step = checkpoint.step if checkpoint else 0
    is_over = state in ("finished", "refused")
    steps = 0 if is_over else experiment.settings.max_steps - first_step
    return PlannedRun(
        record.name,
        cell.differs,
        state,
        plan.reason if plan.action in ("held", "refuse") else "",
        cost.parameters,
        cost.flops_per_token,
        steps,
        steps * cost.tokens_per_step,
        _seconds(experiment, steps, cost.seconds),
    )


def _seconds(experiment: Experiment, steps: int, step: StepSeconds | None) -> float | None:
    """Estimate the time of some steps, their validations and the last evaluation of all splits."""
    if steps == 0:
        return 0.0
    if step is None:
        return None
    splits = experiment.dataset.splits
    names = [name for name in experiment.dataset.split_names if name != "train"]
    num_batches = {name: math.ceil(len(splits[name]) / experiment.batch_size) for name in names}
    validations = steps // experiment.settings.val_check_interval
    evaluated = validations * num_batches.get("validation", 0) + sum(num_batches.values())
    return steps * step.training + evaluated * step.evaluation
