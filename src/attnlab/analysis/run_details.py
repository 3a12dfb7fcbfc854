"""What runs there are, what one is, and in what two differ: the reports of `attnlab runs`."""

import os
import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.analysis.arms import flatten_identity, label_keys
from attnlab.analysis.report import Report
from attnlab.analysis.run_list import ListedRun, RunList
from attnlab.errors import RecordError
from attnlab.run_record.annotations import Note
from attnlab.run_record.record import AttemptState, Record, hash_in_name, plan_resume
from attnlab.run_record.result import FailedAttempt, InterruptedAttempt, RunResult

COSTS = (
    "data_hash",
    "steps",
    "tokens",
    "budget_tokens",
    "parameters",
    "active_parameters",
    "flops_per_token",
    "seconds",
    "device",
)
"""The fields of a result, beside the metrics, that a difference between runs may show."""


@dataclass(frozen=True)
class RunRow:
    """A run in a list."""

    run: str
    """The name of its directory."""
    path: str
    state: str
    dataset: str | None
    seed: int | None
    keys: Mapping[str, Any]
    """The config values that distinguish it from the other runs of the list."""
    metric: str | None
    """The name of its main metric; None before it is finished, as `value`."""
    value: float | None
    step: int
    """The last step that was done."""
    max_steps: int | None
    age: float | None
    """Seconds since its last attempt began; None where none has."""
    size: int
    """Bytes of its files."""
    tags: Sequence[str]
    sweeps: Sequence[str]
    archived: bool
    fault: str | None
    """The fault of its record, where that is damaged."""


@dataclass(frozen=True)
class RunsReport(Report):
    """The runs that there are."""

    runs: Sequence[RunRow]

    @property
    def names_tell(self) -> bool:
        """Whether the readable parts of the names are enough to tell the runs apart."""
        readable = [run.run.removesuffix(f"-{hash_in_name(run.run)}") for run in self.runs]
        return len(set(readable)) == len(readable)


@dataclass(frozen=True)
class AttemptDetails:
    """An attempt of a run."""

    number: int
    began: str
    """The time in UTC."""
    host: str
    pid: int
    end: str
    """How it ended: finished, failed, interrupted, killed or running."""
    step: int
    """The last step that is known of it."""
    error: str | None
    """Why it failed."""


@dataclass(frozen=True)
class RunDetails(Report):
    """All that the record has on one run, but for its rows."""

    run: str
    path: str
    state: str
    next: str
    """What the same command does with it, and why."""
    config: Mapping[str, Any]
    """By dotted keys."""
    overrides: Sequence[str]
    """The overrides of the command that trained it; empty where they were not recorded."""
    config_dir: str | None
    metrics: Mapping[str, float]
    costs: Mapping[str, Any]
    """The fields of `COSTS`; empty before it is finished."""
    versions: Mapping[str, str | None]
    git: Mapping[str, Any] | None
    attempts: Sequence[AttemptDetails]
    tags: Sequence[str]
    notes: Sequence[Note]
    sweeps: Sequence[str]
    archived: bool
    size: int
    """Bytes of its files."""
    checkpoint_size: int
    """Bytes of its checkpoints."""


@dataclass(frozen=True)
class DifferingValue:
    """A value in which two runs differ."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class RunDiff(Report):
    """In what two runs differ; equal values are left out."""

    first: str
    second: str
    config: Sequence[DifferingValue]
    """Dotted keys of the config; `seed` is one of them."""
    metrics: Sequence[DifferingValue]
    costs: Sequence[DifferingValue]
    """Fields of `COSTS`."""
    environment: Sequence[DifferingValue]
    """The commit, the versions, and each class whose source has changed."""


def runs_report(runs: RunList) -> RunsReport:
    """Return a row for each run, the oldest first."""
    readable = [run.config for run in runs if run.state != "damaged"]
    configs = [{key: value for key, value in c.items() if key != "seed"} for c in readable]
    keys = label_keys(configs) if len(configs) > 1 else []
    now = time.time()
    rows = [_row(run, keys, now) for run in runs]
    return RunsReport(sorted(rows, key=lambda row: (-(row.age or 0), row.run)))


def run_details(record: Record) -> RunDetails:
    """Return what the record has on a run. Raises RecordError where it is damaged."""
    result, attempts, identity = record.result, record.attempts, record.identity
    summary = result or (attempts[-1].summary if attempts else None)
    annotations = record.annotations
    plan = plan_resume(record)
    return RunDetails(
        run=record.name,
        path=str(record.path),
        state=record.state,
        next=f"{plan.action}: {plan.reason}",
        config={"seed": identity.get("seed"), **flatten_identity(identity)},
        overrides=summary.overrides if summary else (),
        config_dir=summary.config_dir if summary else None,
        metrics=dict(result.metrics) if result else {},
        costs={name: getattr(result, name) for name in COSTS} if result else {},
        versions=summary.versions if summary else {},
        git=summary.git if summary else None,
        attempts=[_attempt(state) for state in attempts],
        tags=annotations.tags,
        notes=annotations.notes,
        sweeps=annotations.sweeps,
        archived=annotations.archived,
        size=size(record.path),
        checkpoint_size=sum(size(path) for path in record.path.glob("attempts/*/checkpoints")),
    )


def run_diff(first: Record, second: Record) -> RunDiff:
    """Return in what two runs differ. Raises RecordError where one is damaged."""
    details = [run_details(record) for record in (first, second)]
    code = [record.result.code if record.result else {} for record in (first, second)]
    in_both = code[0].keys() & code[1].keys()
    environments = [
        {
            **{f"git {key}": value for key, value in (run.git or {}).items()},
            **run.versions,
            **{f"code of {name}": sources[name][:12] for name in sorted(in_both)},
        }
        for run, sources in zip(details, code, strict=True)
    ]
    return RunDiff(
        first.name,
        second.name,
        config=_differing(*(run.config for run in details)),
        metrics=_differing(*(run.metrics for run in details)),
        costs=_differing(*(run.costs for run in details)),
        environment=_differing(*environments),
    )


def size(path: Path) -> int:
    """Return the bytes of all files below a directory; links are not followed."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            # A run that trains may delete a file meanwhile.
            with suppress(OSError):
                total += os.lstat(Path(folder, name)).st_size
    return total


def _row(run: ListedRun, keys: Sequence[str], now: float) -> RunRow:
    result, config = run.result, run.config
    last_attempt: AttemptState | None = None
    with suppress(RecordError):
        last_attempt = (run.record.attempts or [None])[-1]
    began = None if last_attempt is None else _seconds(last_attempt.claim["at"])
    headline = None if result is None else result.headline
    return RunRow(
        run=run.name,
        path=str(run.path),
        state=run.state,
        dataset=config.get("dataset"),
        seed=config.get("seed"),
        keys={key: config.get(key) for key in keys},
        metric=headline,
        value=None if headline is None else run.metrics.get(headline),
        step=0 if last_attempt is None else _last_step(last_attempt),
        max_steps=config.get("trainer.max_steps"),
        age=None if began is None else max(0.0, now - began),
        size=size(run.path),
        tags=run.annotations.tags,
        sweeps=run.annotations.sweeps,
        archived=run.annotations.archived,
        fault=run.fault,
    )


def _attempt(state: AttemptState) -> AttemptDetails:
    summary = state.summary
    end = ("running" if state.holder_exists else "killed") if summary is None else summary.status
    is_failed = isinstance(summary, FailedAttempt)
    error = f"{summary.error.type}: {summary.error.message}" if is_failed else None
    return AttemptDetails(
        state.number,
        state.claim["at"],
        state.claim["host"],
        state.claim["pid"],
        end,
        _last_step(state),
        error,
    )


def _last_step(state: AttemptState) -> int:
    summary = state.summary
    if isinstance(summary, RunResult):
        return summary.steps
    if isinstance(summary, InterruptedAttempt):
        return summary.step
    if isinstance(summary, FailedAttempt):
        return summary.error.step
    return state.beat[1]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[DifferingValue]:
    """Return the keys whose values differ; None stands for a key that one side lacks."""
    keys = dict.fromkeys([*first, *second])
    pairs = [DifferingValue(key, first.get(key), second.get(key)) for key in keys]
    return [pair for pair in pairs if pair.first != pair.second]


def _seconds(at: str) -> float | None:
    """Return a UTC time of the record in seconds since the epoch; None where it is none."""
    with suppress(ValueError):
        return float(timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ")))
    return None
