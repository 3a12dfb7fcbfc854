"""Find the runs that a user names: by directory, name, prefix, pattern or sweep."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError, RequestError
from attnlab.run_record.record import (
    Record,
    find_named_run,
    find_runs,
    is_directory,
    records_with_prefix,
)
from attnlab.run_record.run_ref import RunRef, find_record


def find_records(
    references: RunRef | Iterable[RunRef] | None,
    runs_dir: str | Path | None = None,
    *,
    archived: bool = False,
) -> list[Record]:
    """Return the records that references match, each once; None matches all of `runs_dir`.

    A reference is the directory of a run or of runs, a run's name or hash or the start of one, a
    pattern of names ("pronoun-*"), the name of a sweep, or an object that has a record. Names are
    searched in `runs_dir` (default: $ATTNLAB_RUNS or "runs"). A start of several names matches all
    of them. Archived runs are found by their names alone; with `archived`, as all others are.
    Raises RequestError for a missing directory and for a reference that matches no run.
    """
    directory = Path(runs_dir or default_runs_dir())
    if references is None:
        return _without_archived(find_runs(directory), archived)
    reference_list = [references] if isinstance(references, RunRef) else list(references)
    records = [
        record
        for reference in reference_list
        for record in _matching_records(reference, directory, archived)
    ]
    return list({record.real_path: record for record in records}.values())


def require_runs(
    references: Sequence[RunRef], runs_dir: str | Path | None, *, archived: bool = False
) -> list[Record]:
    """Return the records that references match, without references all.

    Raises RequestError where there is none.
    """
    records = find_records(references or None, runs_dir, archived=archived)
    if not records:
        searched = ", ".join(map(str, references)) or runs_dir or default_runs_dir()
        raise RequestError(
            f"{searched} holds no runs; `attnlab train` makes some, another runs_dir may hold some"
        )
    return records


def _matching_records(reference: RunRef, runs_dir: Path, archived: bool) -> list[Record]:
    """Return the records that a reference matches; none for a directory without runs."""
    if not isinstance(reference, (str, Path)):
        return [find_record(reference)]
    name, path = str(reference), Path(reference)
    is_run = is_directory(path) and (path / "config.yaml").exists()
    records_in_runs_dir = find_runs(runs_dir) if runs_dir.is_dir() and not is_run else []
    if is_directory(path) and not is_run:
        records_in_path = find_runs(path)
        # A directory of the working directory may have the name that runs begin with.
        if records_in_path or not records_with_prefix(records_in_runs_dir, name):
            return _without_archived(records_in_path, archived)
    elif not is_run and re.search(r"[*?[]", name):
        directory = path.parent if path.name != name else runs_dir
        records_like_pattern = [
            record for record in find_runs(directory) if fnmatchcase(record.name, path.name)
        ]
        if not records_like_pattern:
            raise RequestError(f"no run in {directory} has a name like {path.name!r}")
        return _without_archived(records_like_pattern, archived)
    prefixed_records = records_with_prefix(records_in_runs_dir, name)
    if [record.name for record in prefixed_records] == [name]:
        return prefixed_records
    records_in_sweep = [record for record in records_in_runs_dir if name in _read_sweeps(record)]
    if records_in_sweep:
        return _without_archived(records_in_sweep, archived)
    if len(prefixed_records) > 1:
        unarchived_records = _without_archived(prefixed_records, archived)
        if unarchived_records:
            return unarchived_records
    return [find_named_run(name, runs_dir)]


def _without_archived(records: Sequence[Record], archived: bool) -> list[Record]:
    """Return the records without those that were archived, or with `archived` all."""
    return [record for record in records if archived or not _is_archived(record)]


def _is_archived(record: Record) -> bool:
    with suppress(RecordError):
        return record.annotations.archived
    return False


def _read_sweeps(record: Record) -> Sequence[str]:
    with suppress(RecordError):
        return record.annotations.sweeps
    return ()
