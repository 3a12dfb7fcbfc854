"""Where a sweep stands: its listed cells, and what the records of their runs say of each."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attnlab.analysis.report import Report
from attnlab.analysis.run_list import ListedRun, RunList, list_runs
from attnlab.analysis.run_progress import run_progress
from attnlab.errors import RecordError, RequestError
from attnlab.run_record.choice_name import short_labels
from attnlab.run_record.record import Record, find_runs, hash_in_name
from attnlab.run_record.result import FailedAttempt
from attnlab.run_record.sweep_record import ListedCell, SweepRecord, sweep_names

NOT_BEGUN = "not begun"
WAITS_FOR_TRAINING = (NOT_BEGUN, "new", "interrupted", "killed")
"""The states of cells that the same command would train."""


@dataclass(frozen=True)
class CellStatus:
    """One run of a sweep."""

    label: str
    """What distinguishes it from the others, in few words."""
    run: str | None
    """The name of its run; null before it has begun."""
    state: str
    """That of its run, or "not begun"."""
    step: int
    max_steps: int | None
    seconds_left: float | None
    """Of a run that trains, at its pace so far; null for others and before its first step."""
    attempts: int
    """How many processes have trained it."""
    cause: str | None
    """Of a failure: diverged, memory, disk, logger or error; null where it did not fail."""
    error: str | None
    """What failed, or why the record cannot be read."""


@dataclass(frozen=True)
class LaunchStatus:
    """A command that trains cells of a sweep now."""

    number: int
    host: str
    pid: int
    launcher: str
    jobs: int
    """The number of runs at once."""
    started: str
    """In UTC."""
    is_cancelled: bool
    """Whether it was asked to stop."""


@dataclass(frozen=True)
class SweepStatus(Report):
    """What `attnlab sweep status` shows of a sweep."""

    sweep: str
    cells: Sequence[CellStatus]
    states: dict[str, int]
    """The number of cells in each state."""
    launches: Sequence[LaunchStatus]
    seconds_left: float | None
    """An estimate for what runs and what has not ended; null where nothing is known, or trains."""


@dataclass(frozen=True)
class SweepList(Report):
    """The sweeps beside the runs of a directory."""

    sweeps: Sequence[SweepStatus]


def list_sweeps(runs_dir: Path) -> SweepList:
    """Return all sweeps of a directory: those that are listed, and those that runs name."""
    runs = _runs_or_none(runs_dir)
    names = [*sweep_names(runs_dir), *sorted({s for run in runs for s in run.annotations.sweeps})]
    return SweepList([_status(SweepRecord(runs_dir, name), runs) for name in dict.fromkeys(names)])


def sweep_status(runs_dir: Path, name: str) -> SweepStatus:
    """Return where a sweep stands. Raises RequestError where the directory has no such sweep."""
    status = _status(SweepRecord(runs_dir, name), _runs_or_none(runs_dir))
    if not status.cells:
        names = [sweep.sweep for sweep in list_sweeps(runs_dir).sweeps]
        there_are = f"there are {', '.join(names)}" if names else "there is none"
        raise RequestError(f"{runs_dir} has no sweep {name!r}; {there_are}")
    return status


def cells_to_retry(sweep_record: SweepRecord, causes: Sequence[str]) -> list[ListedCell]:
    """Return the listed cells that can be tried again.

    They are those that failed for one of the causes; without causes, all that are neither finished
    nor running, but for those that diverged, which would again.
    """
    runs = _runs_or_none(sweep_record.runs_dir)
    cells = _cells_with_runs(sweep_record, runs)
    chosen = []
    for cell, run in cells:
        status = _cell_status(run, "", time.time())
        if cell is None or status.state in ("finished", "running", "damaged"):
            continue
        if status.cause in causes if causes else status.cause != "diverged":
            chosen.append(cell)
    return chosen


def _runs_or_none(runs_dir: Path) -> RunList:
    """Return the runs of a directory; none where it does not exist."""
    return list_runs(find_runs(runs_dir)) if runs_dir.is_dir() else RunList([])


def _status(sweep_record: SweepRecord, runs: RunList) -> SweepStatus:
    cells = _cells_with_runs(sweep_record, runs)
    labels = short_labels([cell.overrides if cell else () for cell, _ in cells])
    now = time.time()
    statuses = [
        _cell_status(run, label or (run.name if run else ""), now)
        for (_, run), label in zip(cells, labels, strict=True)
    ]
    launches = [
        LaunchStatus(
            launch.number,
            *(launch.claim[key] for key in ("host", "pid", "launcher", "jobs", "at")),
            is_cancelled=launch.is_cancelled,
        )
        for launch in sweep_record.launches
        if launch.is_running
    ]
    finished_runs = [run for _, run in cells if run is not None and run.result is not None]
    return SweepStatus(
        sweep_record.name,
        statuses,
        dict(Counter(status.state for status in statuses)),
        launches,
        _seconds_left(statuses, finished_runs, sum(launch.jobs for launch in launches)),
    )


def _cells_with_runs(
    sweep_record: SweepRecord, runs: RunList
) -> list[tuple[ListedCell | None, ListedRun | None]]:
    """Return each listed cell with its run, and each run that says it is of the sweep."""
    run_by_hash = {hash_in_name(run.name): run for run in runs}
    cells = sweep_record.cells
    listed_hashes = {cell.identity_hash for cell in cells}
    unlisted_runs = [
        run
        for run in runs
        if hash_in_name(run.name) not in listed_hashes
        and sweep_record.name in run.annotations.sweeps
    ]
    return [
        *((cell, run_by_hash.get(cell.identity_hash)) for cell in cells),
        *((None, run) for run in unlisted_runs),
    ]


def _cell_status(run: ListedRun | None, label: str, now: float) -> CellStatus:
    if run is None:
        return CellStatus(label, None, NOT_BEGUN, 0, None, None, 0, None, None)
    if run.result is not None:
        steps = run.result.steps
        return CellStatus(
            label, run.name, "finished", steps, steps, None, run.result.attempt, None, None
        )
    progress = run_progress(run.last_attempt, run.config, now)
    summary = None if run.last_attempt is None else run.last_attempt.summary
    return CellStatus(
        label,
        run.name,
        run.state,
        progress.step,
        progress.max_steps,
        progress.seconds_left if run.state == "running" else None,
        _num_attempts(run.record),
        summary.error.cause if isinstance(summary, FailedAttempt) else None,
        run.failure,
    )


def _num_attempts(record: Record) -> int:
    with suppress(RecordError):
        return len(record.attempts)
    return 0


def _seconds_left(
    cells: Sequence[CellStatus], finished_runs: Sequence[ListedRun], jobs: int
) -> float | None:
    """Estimate the time until all is trained, by the mean of the runs that are finished."""
    seconds_of_running = [cell.seconds_left for cell in cells if cell.state == "running"]
    num_waiting = sum(cell.state in WAITS_FOR_TRAINING for cell in cells)
    results = [run.result for run in finished_runs if run.result is not None]
    if jobs == 0 or None in seconds_of_running or (num_waiting and not results):
        return None
    waiting_seconds = 0.0
    if num_waiting:
        mean_seconds = sum(result.seconds for result in results) / len(results)
        waiting_seconds = num_waiting * mean_seconds
    known_seconds = [seconds for seconds in seconds_of_running if seconds is not None]
    return (sum(known_seconds) + waiting_seconds) / jobs
