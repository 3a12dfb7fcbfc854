"""What runs there are, what one is, and in what two differ: the reports of `attnlab runs`."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.analysis.arms import flatten_identity, label_keys
from attnlab.analysis.report import Report
from attnlab.analysis.run_list import ListedRun, RunList
from attnlab.analysis.run_progress import epoch_seconds, last_step
from attnlab.run_record.annotations import Note
from attnlab.run_record.record import AttemptState, Record, hash_in_name, plan_resume
from attnlab.run_record.result import FailedAttempt

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
    seconds: float | None
    """How long it trained, over all attempts; None before it is finished."""
    size: int | None
    """Bytes of its files; None where they were not asked for."""
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
    def has_distinct_names(self) -> bool:
        """Whether the readable parts of the names are enough to tell the runs apart."""
        readable_names = [run.run.removesuffix(f"-{hash_in_name(run.run)}") for run in self.runs]
        return len(set(readable_names)) == len(readable_names)


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


def runs_report(runs: RunList, *, with_sizes: bool = True) -> RunsReport:
    """Return a row for each run, the oldest first.

    Without sizes, which take a look at every file, thousands of finished runs are listed at once.
    """
    readable_runs = [run for run in runs if run.state != "damaged"]
    configs = [
        {key: value for key, value in run.config.items() if key != "seed"} for run in readable_runs
    ]
    distinguishing_keys = label_keys(configs) if len(configs) > 1 else []
    now = time.time()
    rows = [_run_row(run, distinguishing_keys, now, with_sizes) for run in runs]
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
        attempts=[_attempt_details(attempt) for attempt in attempts],
        tags=annotations.tags,
        notes=annotations.notes,
        sweeps=annotations.sweeps,
        archived=annotations.archived,
        size=directory_size(record.path),
        checkpoint_size=sum(
            directory_size(path) for path in record.path.glob("attempts/*/checkpoints")
        ),
    )


def run_diff(first: Record, second: Record) -> RunDiff:
    """Return in what two runs differ. Raises RecordError where one is damaged."""
    first_details, second_details = run_details(first), run_details(second)
    first_code, second_code = (
        record.result.code if record.result else {} for record in (first, second)
    )
    common_classes = sorted(first_code.keys() & second_code.keys())
    return RunDiff(
        first.name,
        second.name,
        config=_differing_values(first_details.config, second_details.config),
        metrics=_differing_values(first_details.metrics, second_details.metrics),
        costs=_differing_values(first_details.costs, second_details.costs),
        environment=_differing_values(
            _environment(first_details, first_code, common_classes),
            _environment(second_details, second_code, common_classes),
        ),
    )


def _environment(
    run: RunDetails, source_hashes: Mapping[str, str], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the commit and the versions of a run, and the source hashes of some classes."""
    return {
        **{f"git {key}": value for key, value in (run.git or {}).items()},
        **run.versions,
        **{f"code of {name}": source_hashes[name][:12] for name in class_names},
    }


def directory_size(path: Path) -> int:
    """Return the bytes of all files below a directory; links are not followed."""
    num_bytes = 0
    for folder, _, file_names in os.walk(path):
        for file_name in file_names:
            # A run that trains may delete a file meanwhile.
            with suppress(OSError):
                num_bytes += os.lstat(Path(folder, file_name)).st_size
    return num_bytes


def _run_row(run: ListedRun, keys: Sequence[str], now: float, with_size: bool) -> RunRow:
    """Return the row of a run; `now` is in seconds since the epoch."""
    result, config = run.result, run.config
    if result is not None:
        step, start_time = result.steps, epoch_seconds(result.started)
    else:
        attempt = run.last_attempt
        step = 0 if attempt is None else last_step(attempt)
        start_time = None if attempt is None else epoch_seconds(attempt.claim["at"])
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
        step=step,
        max_steps=config.get("trainer.max_steps"),
        age=None if start_time is None else max(0.0, now - start_time),
        seconds=None if result is None else result.seconds,
        size=directory_size(run.path) if with_size else None,
        tags=run.annotations.tags,
        sweeps=run.annotations.sweeps,
        archived=run.annotations.archived,
        fault=run.fault,
    )


def _attempt_details(attempt: AttemptState) -> AttemptDetails:
    """Return when an attempt began, and how and why it ended."""
    summary = attempt.summary
    end_without_summary = "running" if attempt.holder_exists else "killed"
    end = end_without_summary if summary is None else summary.status
    is_failed = isinstance(summary, FailedAttempt)
    error = f"{summary.error.type}: {summary.error.message}" if is_failed else None
    return AttemptDetails(
        attempt.number,
        attempt.claim["at"],
        attempt.claim["host"],
        attempt.claim["pid"],
        end,
        last_step(attempt),
        error,
    )


def _differing_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[DifferingValue]:
    """Return the keys whose values differ; None stands for a key that one side lacks."""
    keys = dict.fromkeys([*first, *second])
    value_pairs = [DifferingValue(key, first.get(key), second.get(key)) for key in keys]
    return [pair for pair in value_pairs if pair.first != pair.second]
