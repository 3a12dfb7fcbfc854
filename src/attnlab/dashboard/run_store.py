"""The runs of a dashboard, read again only where they changed."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from attnlab.analysis.find import find_records
from attnlab.analysis.run_list import ListedRun, RunList, Selection, list_runs
from attnlab.analysis.run_progress import RunProgress, run_progress
from attnlab.analysis.select import open_preview, with_previews
from attnlab.analysis.unfinished import UnfinishedRun
from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError
from attnlab.run_record.record import Record, is_directory
from attnlab.run_record.row_preview import RowPreviews

LOOK_EVERY = 20.0
"""Seconds after which everything is looked at again although no directory changed."""
Signature = tuple[Any, ...]


class RunStore:
    """The runs that some references match, which may grow while they are watched.

    A finished run is read once, and again where its result or its annotations changed. Runs behind
    a link that leads out of their directory are left out.
    """

    def __init__(self, references: Sequence[str], runs_dir: Path | None) -> None:
        self.references = tuple(references)
        self.runs_dir = Path(runs_dir or default_runs_dir())
        self._run_by_path: dict[Path, tuple[Signature, ListedRun]] = {}
        self._runs = RunList([])
        self._watched: Signature = ()
        self._looked_at = 0.0
        self._lock = RLock()
        self._previews_by_dir: dict[Path, RowPreviews] = {}

    @property
    def place(self) -> str:
        """Where the runs are, as the user named it."""
        return " ".join(self.references) or str(self.runs_dir)

    def runs(self, *, look: bool = True) -> RunList:
        """Return all runs, archived ones too.

        Without a `look` at everything, new runs are found where a directory changed, and only runs
        that are not finished are read again.
        """
        with self._lock:
            watched = self._watched_directories()
            is_old = time.monotonic() - self._looked_at > LOOK_EVERY
            if look or is_old or watched != self._watched:
                self._look_at_all()
                self._watched, self._looked_at = watched, time.monotonic()
            else:
                self._runs = RunList(_current(run) for run in self._runs)
            return self._runs

    def previewed(self, selection: Selection) -> Selection:
        """Return a selection with the rows of previews, without the damaged runs.

        Raises RequestError where no run is left.
        """
        with self._lock:
            return with_previews(selection, self._previews_by_dir)

    def unfinished(self, runs: RunList) -> tuple[list[UnfinishedRun], dict[Path, str]]:
        """Return those of some runs that have rows and no result, and the faults of others."""
        readable_runs, fault_by_path = [], {}
        with self._lock:
            for run in runs:
                if run.result is not None or run.state in ("new", "damaged"):
                    continue
                is_growing = run.state == "running"
                try:
                    record = open_preview(run.record, self._previews_by_dir, grows=is_growing)
                except RecordError as error:
                    fault_by_path[run.path] = str(error)
                    continue
                readable_runs.append(UnfinishedRun(run.name, run.state, run.config, record))
            for previews in self._previews_by_dir.values():
                previews.save()
        return readable_runs, fault_by_path

    def progress(self) -> dict[str, RunProgress]:
        """Return how far the runs are that are not finished and can be read, by their names."""
        now = time.time()
        return {
            run.name: run_progress(
                run.last_attempt, run.config, now, is_running=run.state == "running"
            )
            for run in self._runs
            if run.result is None and run.state != "damaged"
        }

    def version(self) -> str:
        """Return a text that changes with the runs and their states, not with their steps."""
        signature_by_path = {path: signature for path, (signature, _) in self._run_by_path.items()}
        states = repr(
            [(str(run.path), run.state, signature_by_path.get(run.path)) for run in self._runs]
        )
        return hashlib.sha256(states.encode()).hexdigest()[:16]

    def written(self) -> Signature:
        """Return what changes when a run that trains writes rows."""
        attempts = [run.last_attempt for run in self._runs if run.state == "running"]
        return tuple(
            (str(path), *_changed_at(path))
            for attempt in attempts
            if attempt is not None
            for path in sorted(attempt.path.glob("*.arrow"))
        )

    def find(self, name: str) -> ListedRun | None:
        """Return the run of a name, or of a path where two runs have one name; None for none."""
        matches = [run for run in self._runs if name in (run.name, str(run.path))]
        return matches[0] if matches else None

    def _look_at_all(self) -> None:
        records = [record for record in self._records() if _stays_in_its_directory(record)]
        signatures = [_signature(record) for record in records]
        changed = [
            record
            for record, signature in zip(records, signatures, strict=True)
            if self._run_by_path.get(record.path, ((), None))[0] != signature
        ]
        new_runs = {run.path: run for run in list_runs(changed)}
        run_by_path: dict[Path, tuple[Signature, ListedRun]] = {}
        for record, signature in zip(records, signatures, strict=True):
            run = new_runs.get(record.path)
            if run is None:
                run = self._run_by_path[record.path][1]
            run_by_path[record.path] = (signature, run)
        self._run_by_path = run_by_path
        self._runs = RunList(_current(run) for _, run in run_by_path.values())

    def _records(self) -> list[Record]:
        if not self.references and not self.runs_dir.is_dir():
            return []
        return find_records(self.references or None, self.runs_dir, archived=True)

    def _watched_directories(self) -> Signature:
        """Return when directories of runs last had a run more or less."""
        directories = {self.runs_dir, *(run.path.parent for run in self._runs)}
        directories |= {Path(ref) for ref in self.references if is_directory(ref)}
        return tuple(sorted((str(path), _changed_at(path)) for path in directories))


def _current(run: ListedRun) -> ListedRun:
    """Return a run as it is now; one that is finished, or cannot be read, as it was."""
    if run.result is not None or run.state == "damaged" or _is_as_it_was(run):
        return run
    (fresh_run,) = list_runs([Record(run.path)])
    return fresh_run


def _is_as_it_was(run: ListedRun) -> bool:
    """Return whether the last attempt of a run still is, and is in the same state, by few looks."""
    attempt = run.last_attempt
    if attempt is None or (attempt.path.parent / str(attempt.number + 1)).exists():
        return False
    if run.state != "running":
        # What ended does not go on, but in another attempt.
        return True
    return not (attempt.path / "run.json").exists() and attempt.holder_exists


def _stays_in_its_directory(record: Record) -> bool:
    """Return whether a run is a directory of its own, and no link to another place."""
    return record.real_path.parent == record.path.parent.resolve()


def _signature(record: Record) -> Signature:
    """Return what changes with the result, the annotations or the attempts of a run."""
    names = ("run.json", "annotations.jsonl", "attempts")
    return tuple(_changed_at(record.path / name) for name in names)


def _changed_at(path: Path) -> Signature:
    try:
        status = path.lstat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
