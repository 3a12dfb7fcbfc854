"""Delete runs: whole ones only, and none that another one needs."""

from collections.abc import Sequence
from pathlib import Path

from attnlab.errors import RecordError, RequestError
from attnlab.run_record import write
from attnlab.run_record.record import Record, find_runs


def require_deletable(records: Sequence[Record]) -> None:
    """Raise RequestError for runs that a process trains, or that runs which stay continue."""
    deleted_paths = {record.path.resolve() for record in records}
    for record in records:
        if record.path.is_symlink():
            raise RequestError(f"{record.path} is a link; delete the run where it lies")
        if _state_or_damaged(record) == "running":
            raise RequestError(f"{record.name} is being trained; stop that first")
    for runs_dir in {record.path.parent for record in records}:
        for neighbour in find_runs(runs_dir, all_generations=True):
            if neighbour.path.resolve() in deleted_paths:
                continue
            for parent_name in _parent_names(neighbour):
                if (runs_dir / parent_name).resolve() in deleted_paths:
                    raise RequestError(
                        f"{neighbour.name} continues {parent_name} (extend=true) and has its rows "
                        "there; delete both, or neither"
                    )


def delete_run(record: Record) -> None:
    """Delete a run's directory. Raises RecordError where that fails."""
    try:
        write.remove_directory_at_once(record.path)
    except OSError as error:
        raise RecordError(f"{record.path} cannot be deleted ({error.strerror})") from error


def _state_or_damaged(record: Record) -> str:
    try:
        return record.state
    except RecordError:
        return "damaged"


def _parent_names(record: Record) -> list[Path]:
    """Return the names of the runs whose checkpoints the attempts of a run began from."""
    try:
        origins = [attempt.claim["resumed_from"] for attempt in record.attempts]
    except RecordError:
        return []
    return [Path(origin["run"]) for origin in origins if origin and "run" in origin]
