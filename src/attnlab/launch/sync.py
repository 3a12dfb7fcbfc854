"""Send finished runs to other tools, long after they were trained, and each of them once.

A copy is made from the record by the logger that would have followed the run. It is written beside
its place and moved there when it is complete, so a copy that is there is whole. A lock on the run's
directory keeps two processes from sending the same run at once.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.report import Report
from attnlab.analysis.select import Selection
from attnlab.building import first_line
from attnlab.callbacks.row_logger import RowLogger
from attnlab.errors import RequestError
from attnlab.launch.logged_run import describe_recorded_run, probe_page_builder
from attnlab.logger.base import LoggedRun, Logger
from attnlab.logger.csv import CSV
from attnlab.logger.tensorboard import TensorBoard
from attnlab.logger.wandb import Wandb
from attnlab.run_record import write
from attnlab.run_record.forms import Mirror
from attnlab.run_record.mirrors import (
    ONLINE,
    add_mirror,
    find_mirror,
    format_place,
    new_mirror,
    read_mark,
    read_mirrors,
    write_mark,
)
from attnlab.run_record.record import Record, attempt_dir_and_origin
from attnlab.run_record.result import RunResult


@dataclass(frozen=True)
class SyncedRun:
    """What became of sending a run."""

    run: str
    """The name of the run."""
    status: Literal["sent", "present", "failed"]
    """present: this copy was there before, and nothing was done."""
    place: str | None
    """The directory of the copy; None where its place is not known."""
    at: str | None
    """The time at which the copy was complete, as in 2026-12-01T15:58:53Z."""
    reason: str | None = None
    """The reason why it failed."""


@dataclass(frozen=True)
class SyncReport(Report):
    """Which runs were sent to a tool, and which were there before."""

    tool: str
    """One of wandb, tensorboard and csv."""
    project: str | None
    """The project, for wandb: PROJECT, or ENTITY/PROJECT."""
    runs: Sequence[SyncedRun]
    left_out: Sequence[LeftOut]
    """The runs that are not finished, and those whose record is damaged."""

    @property
    def ok(self) -> bool:
        """Whether every finished run has its copy."""
        is_damaged = any(run.state == "damaged" for run in self.left_out)
        return not is_damaged and all(run.status != "failed" for run in self.runs)


def sync_runs(
    selection: Selection,
    logger: Logger,
    directory: Path | None = None,
    upload: Callable[[Path], None] | None = None,
) -> Iterator[SyncedRun]:
    """Send finished runs through a logger; yields what became of each, in their order.

    The copy of a run lies where the logger would have written it while the run trained, or with
    `directory` in a directory there that has the name and the attempt of the run. With `upload`, it
    is then uploaded from its place. A run that fails does not stop the others.
    """
    for name, record in selection.records.items():
        try:
            yield _sync_run(record, selection.results[name], logger, directory, upload)
        except Exception as error:  # Tools and networks fail in many ways.
            prefix = "" if isinstance(error, RequestError) else f"{type(error).__name__}: "
            yield SyncedRun(record.name, "failed", None, None, f"{prefix}{first_line(error)}")


def logger_for(tool: str, project: str | None = None, **knobs: Any) -> Logger:
    """Return the logger of a tool; only wandb has knobs and a project, as [ENTITY/]PROJECT.

    Raises RequestError for values that it does not take.
    """
    try:
        if tool != "wandb":
            return {"csv": CSV, "tensorboard": TensorBoard}[tool]()
        if project is None:
            return Wandb(**knobs)
        entity, _, name = project.rpartition("/")
        if not name or "/" in entity or project.startswith("/"):
            raise RequestError(f"project {project!r}: expected PROJECT or ENTITY/PROJECT")
        return Wandb(project=name, entity=entity or None, **knobs)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(str(error)) from error


def _sync_run(
    record: Record,
    result: RunResult,
    logger: Logger,
    directory: Path | None,
    upload: Callable[[Path], None] | None,
) -> SyncedRun:
    """Make sure that the copy of a run is at its place and, with `upload`, uploaded."""
    assert logger.tool is not None
    logged_run = describe_recorded_run(record, result)
    attempt_path, _ = attempt_dir_and_origin(record, result)
    parent = attempt_path if directory is None else directory / logged_run.run_id
    place, tool, project = parent / logger.tool, logger.tool, logger.destination
    with write.lock_directory(record.path):
        mirrors, stated_place = read_mirrors(record.path), format_place(place, record.path)
        uploaded_mirror = find_mirror(mirrors, tool, ONLINE, project)
        if upload is not None and uploaded_mirror is not None:
            return SyncedRun(record.name, "present", str(place), uploaded_mirror["at"])
        mirror = find_mirror(mirrors, tool, stated_place, project) or uploaded_mirror
        status = "present"
        # The copy of a tool with projects may have been uploaded since, and deleted.
        may_be_absent = mirror is not None and project is not None and upload is None
        if place.exists():
            requested_mirror = new_mirror(tool, stated_place, project, logged_run.run_id)
            mirror = _require_complete_copy(mirrors, place, result, requested_mirror)
        elif not may_be_absent:
            _write_copy(record, result, logged_run, logger, parent)
            mirror, status = read_mark(place), "sent"
        assert mirror is not None
        if mirror not in mirrors:
            # Also where the program was killed between the copy and its line.
            add_mirror(record.path, mirror)
        if upload is not None:
            upload(place)
            mirror, status = new_mirror(tool, ONLINE, project, logged_run.run_id), "sent"
            add_mirror(record.path, mirror)
    return SyncedRun(record.name, status, str(place), mirror["at"])


def _require_complete_copy(
    mirrors: Sequence[Mirror], place: Path, result: RunResult, requested_mirror: Mirror
) -> Mirror:
    """Return the line of the copy at a place.

    Raises RequestError if it was not completed, and if it was made for another project.
    """
    mirrors_at_place = [
        mirror
        for mirror in mirrors
        if (mirror["tool"], mirror["place"])
        == (requested_mirror["tool"], requested_mirror["place"])
    ]
    mirror = mirrors_at_place[-1] if mirrors_at_place else read_mark(place)
    if mirror is None and not result.choices:
        # Loggers of the versions that stated no choices wrote no lines.
        return requested_mirror
    if mirror is None:
        raise RequestError(
            f"{place} has a copy that was not completed; move it away, or another --dir has room"
        )
    if mirror["project"] != requested_mirror["project"]:
        raise RequestError(
            f"{place} has the copy for the project {mirror['project']}; another --dir has room for "
            f"that of {requested_mirror['project']}"
        )
    return mirror


def _write_copy(
    record: Record, result: RunResult, logged_run: LoggedRun, logger: Logger, parent: Path
) -> None:
    """Write a copy beside its place, and move it there when it is complete."""
    assert logger.tool is not None
    prefix = f"{write.TEMPORARY}{logger.tool}-"
    for stale_path in parent.glob(f"{prefix}*"):
        # What a killed process left; nobody else writes here, as the run is locked.
        write.remove_directory(stale_path)
    parent_is_new = not parent.exists()
    temporary = parent / f"{prefix}{uuid.uuid4().hex}"
    write.make_directory(temporary)
    try:
        row_logger = RowLogger(
            [logger],
            logged_run,
            record.layers,
            probe_page_builder(record.name),
            warn=lambda warning: None,
        )
        row_logger.replay(record, result, temporary)
        stated_place = format_place(parent / logger.tool, record.path)
        mirror = new_mirror(logger.tool, stated_place, logger.destination, logged_run.run_id)
        write_mark(temporary / logger.tool, mirror)
        write.move_directory(temporary / logger.tool, parent / logger.tool)
    finally:
        write.remove_directory(temporary)
        if parent_is_new:
            # Only where nothing was moved into it.
            with suppress(OSError):
                parent.rmdir()
