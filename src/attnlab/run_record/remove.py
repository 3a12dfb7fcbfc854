"""Delete runs: whole ones only, and none that another one needs."""

from collections.abc import Sequence
from pathlib import Path

from attnlab.errors import RecordError, RequestError
from attnlab.run_record import write
from attnlab.run_record.record import Record, find_runs


def require_deletable(records: Sequence[Record]) -> None:
    """Raise RequestError for runs that a process trains, or that runs which stay continue."""
    paths = {record.path.resolve() for record in records}
    for record in records:
        if record.path.is_symlink():
            raise RequestError(f"{record.path} is a link; delete the run where it lies")
        if _state(record) == "running":
            raise RequestError(f"{record.name} is being trained; stop that first")
    for runs_dir in {record.path.parent for record in records}:
        for record in find_runs(runs_dir, all_generations=True):
            if record.path.resolve() in paths:
                continue
            for parent in _parents(record):
                if (runs_dir / parent).resolve() in paths:
                    raise RequestError(
                        f"{record.name} continues {parent} (extend=true) and has its rows there; "
                        "delete both, or neither"
                    )


def delete_run(record: Record) -> None:
    """Delete a run's directory. Raises RecordError where that fails."""
    try:
        write.remove_at_once(record.path)
    except OSError as error:
        raise RecordError(f"{record.path} cannot be deleted ({error.strerror})") from error


def _state(record: Record) -> str:
    try:
        return record.state
    except RecordError:
        return "damaged"


def _parents(record: Record) -> list[Path]:
    """Return the names of the runs whose checkpoints the attempts of a run began from."""
    try:
        origins = [attempt.claim["resumed_from"] for attempt in record.attempts]
    except RecordError:
        return []
    return [Path(origin["run"]) for origin in origins if origin and "run" in origin]
