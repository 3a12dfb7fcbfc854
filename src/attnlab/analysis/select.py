"""Separate the runs that a command can use from the others."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from attnlab.analysis.find import require_runs
from attnlab.analysis.findings import findings
from attnlab.analysis.left_out import LeftOut, by_state
from attnlab.analysis.run_list import Selection, list_runs
from attnlab.errors import RecordError, RequestError
from attnlab.run_record import pattern_table
from attnlab.run_record.head_scores import load_head_scores
from attnlab.run_record.record import Record, Snapshot
from attnlab.run_record.run_ref import RunRef


def select_runs(
    words: Sequence[RunRef], runs_dir: str | Path | None = None, where: str | None = None
) -> Selection:
    """Select the runs that words name (`find_records`) and that conditions hold for.

    Without words, all runs are meant. Raises RequestError for a word that matches no run, for a
    condition that no run can meet, and where no run is finished.
    """
    return select_records(require_runs(words, runs_dir), where)


def select_any(
    names: RunRef | Iterable[RunRef],
    runs_dir: str | Path | None = None,
    where: str | None = None,
) -> Selection:
    """Select the named runs without the damaged ones; a single named run may be unfinished.

    Raises RequestError as `select_runs` does.
    """
    references = [names] if isinstance(names, RunRef) else list(names)
    records = require_runs(references, runs_dir)
    if len(references) == len(records) == 1 and where is None:
        return select_record(records[0])
    return without_damage(select_records(records, where))


def select_record(record: Record) -> Selection:
    """Select a single run, finished or not, without reading its result."""
    return Selection({record.name: record}, {}, [])


def select_records(records: Sequence[Record], where: str | None = None) -> Selection:
    """Separate the finished runs from the others. Raises RequestError where none is finished."""
    runs = list_runs(records)
    return (runs if where is None else runs.where(where)).selection


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
            pattern_table.load_patterns(record)
            load_head_scores(record)
            findings(selection.results[name], name)
        except RecordError as error:
            left_out.append(LeftOut(name, "damaged", str(error)))
    damaged = {run.run for run in left_out}
    undamaged = {name: record for name, record in records.items() if name not in damaged}
    if not undamaged:
        raise RequestError(f"no run can be used: {by_state(left_out)}")
    return Selection(undamaged, {name: selection.results[name] for name in undamaged}, left_out)
