"""Find the runs that a command names, and separate those with a result from the others."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from attnlab.analysis.findings import findings
from attnlab.analysis.left_out import LeftOut, by_state
from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError, RequestError
from attnlab.run_record import patterns
from attnlab.run_record.head_scores import head_scores
from attnlab.run_record.record import (
    Record,
    Snapshot,
    find_named_run,
    find_runs,
    is_directory,
    with_prefix,
)
from attnlab.run_record.result import RunResult
from attnlab.run_record.run_ref import RunRef, find_record


class Selection(NamedTuple):
    """The records that a user named."""

    records: dict[str, Record]
    """The records of finished runs, by a unique name."""
    results: dict[str, RunResult]
    left_out: list[LeftOut]
    """The runs without a usable result."""


def find_records(
    names: RunRef | Iterable[RunRef] | None, runs_dir: str | Path | None = None
) -> list[Record]:
    """Return the records that names match, each once; None matches all of `runs_dir`.

    A name is the directory of a run or of runs, a unique prefix of a run's name or hash, a pattern
    of names ("pronoun-*"), or an object that has a record. Names and patterns are searched in
    `runs_dir` (default: $ATTNLAB_RUNS or "runs"). Raises RequestError for a missing directory and
    for a name that matches no run.
    """
    directory = Path(runs_dir or default_runs_dir())
    if names is None:
        return find_runs(directory)
    references = [names] if isinstance(names, RunRef) else list(names)
    records = [r for reference in references for r in _matching_records(reference, directory)]
    return list({record.path.resolve(): record for record in records}.values())


def select_runs(words: Sequence[str], runs_dir: Path | None) -> Selection:
    """Select the runs that words name (`find_records`); without words, all.

    Raises RequestError for a word that matches no run, and where no run is finished.
    """
    return select_finished(_require_runs(words, runs_dir))


def select_any(names: RunRef | Iterable[RunRef], runs_dir: str | Path | None = None) -> Selection:
    """Select the named runs without the damaged ones; a single named run may be unfinished.

    Raises RequestError as `select_runs` does.
    """
    references = [names] if isinstance(names, RunRef) else list(names)
    records = _require_runs(references, runs_dir)
    if len(references) == len(records) == 1:
        return select_record(records[0])
    return without_damage(select_finished(records))


def select_record(record: Record) -> Selection:
    """Select a single run, finished or not, without reading its result."""
    return Selection({record.name: record}, {}, [])


def select_finished(records: Sequence[Record]) -> Selection:
    """Separate the finished runs from the others. Raises RequestError where none is finished."""
    selection = Selection({}, {}, [])
    for record in records:
        try:
            result = record.result
            if result is None:
                selection.left_out.append(LeftOut(record.name, record.state))
                continue
        except RecordError as error:
            selection.left_out.append(LeftOut(record.name, "damaged", str(error)))
            continue
        name = str(record.path) if record.name in selection.results else record.name
        selection.records[name], selection.results[name] = record, result
    if not selection.results:
        states = by_state(selection.left_out)
        if all(run.state == "damaged" for run in selection.left_out):
            raise RequestError(f"no run can be used: {states}")
        raise RequestError(f"no run is finished: {states}; train them to the end")
    return selection


def without_damage(selection: Selection) -> Selection:
    """Leave out the runs with damaged rows too, and read each table of the other runs only once.

    Raises RequestError where no run is left.
    """
    left_out = list(selection.left_out)
    records: dict[str, Record] = {
        name: Snapshot(record.path) for name, record in selection.records.items()
    }
    for name, record in records.items():
        try:
            record.check_rows()
            patterns.load_patterns(record)
            head_scores(record)
            findings(selection.results[name], name)
        except RecordError as error:
            left_out.append(LeftOut(name, "damaged", str(error)))
    damaged = {run.run for run in left_out}
    undamaged = {name: record for name, record in records.items() if name not in damaged}
    if not undamaged:
        raise RequestError(f"no run can be used: {by_state(left_out)}")
    return Selection(undamaged, {name: selection.results[name] for name in undamaged}, left_out)


def _matching_records(reference: RunRef, runs_dir: Path) -> list[Record]:
    """Return the records that one name matches; none for a directory without runs."""
    if not isinstance(reference, (str, Path)):
        return [find_record(reference)]
    name, path = str(reference), Path(reference)
    if is_directory(path) and not (path / "config.yaml").exists():
        records = find_runs(path)
        # A directory of the working directory may have the name that runs begin with.
        is_prefix = not records and runs_dir.is_dir() and with_prefix(find_runs(runs_dir), name)
        return [find_named_run(name, runs_dir)] if is_prefix else records
    if is_directory(path) or not re.search(r"[*?[]", name):
        return [find_named_run(name, runs_dir)]
    directory = path.parent if path.name != name else runs_dir
    if matching_records := [r for r in find_runs(directory) if fnmatchcase(r.name, path.name)]:
        return matching_records
    raise RequestError(f"no run in {directory} has a name like {path.name!r}")


def _require_runs(names: Sequence[RunRef], runs_dir: str | Path | None) -> list[Record]:
    """Return the records that names match, without names all. Raises RequestError for none."""
    if records := find_records(names or None, runs_dir):
        return records
    place = ", ".join(map(str, names)) or runs_dir or default_runs_dir()
    raise RequestError(
        f"{place} holds no runs; `attnlab train` makes some, another runs_dir may hold some"
    )
