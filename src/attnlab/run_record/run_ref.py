"""What names a run in Python: a directory, the start of a name, or what has its record."""

from pathlib import Path
from reprlib import repr as short_repr
from typing import Protocol, runtime_checkable

from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.run_record.record import Record, find_named_run


@runtime_checkable
class HasRecord(Protocol):
    """An entry of a list of runs, or a loaded run."""

    @property
    def record(self) -> Record: ...


RunRef = str | Path | Record | HasRecord
"""A run: its directory, a unique prefix of its name or hash, its record, or what has a record."""


def find_record(run: RunRef, runs_dir: str | Path | None = None) -> Record:
    """Return the record of a run.

    Names are searched in `runs_dir` (default: $ATTNLAB_RUNS or "runs"). Raises RequestError for a
    run that does not exist, and for what names no run.
    """
    if isinstance(run, Record):
        return run
    if isinstance(run, (str, Path)):
        return find_named_run(str(run), Path(runs_dir or default_runs_dir()))
    if isinstance(run, HasRecord):
        return run.record
    raise RequestError(
        f"{short_repr(run)} is no run: expected a directory, the start of a name, or an entry of "
        f"attnlab.runs(), got {type(run).__name__}"
    )
