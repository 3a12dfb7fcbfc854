"""Separate the runs that a command can use from the others."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from attnlab.analysis.find import require_runs
from attnlab.analysis.findings import read_findings
from attnlab.analysis.left_out import LeftOut, describe_by_state
from attnlab.analysis.run_list import Selection, list_runs
from attnlab.errors import RecordError, RequestError
from attnlab.run_record.head_scores import load_head_scores
from attnlab.run_record.pattern_table import load_patterns
from attnlab.run_record.record import Record, Snapshot
from attnlab.run_record.row_preview import RowPreviews
from attnlab.run_record.run_ref import RunRef


def select_runs(
    references: Sequence[RunRef], runs_dir: str | Path | None = None, where: str | None = None
) -> Selection:
    """Select the referenced runs (`find_records`) for which the conditions `where` hold.

    Without references, all runs are meant. Raises RequestError for a reference that matches no run,
    for a condition that no run can meet, and where no run is finished.
    """
    return select_records(require_runs(references, runs_dir), where)


def select_undamaged(
    references: RunRef | Iterable[RunRef],
    runs_dir: str | Path | None = None,
    where: str | None = None,
) -> Selection:
    """Select the referenced runs without the damaged; a single referenced run may be unfinished.

    Raises RequestError as `select_runs` does.
    """
    reference_list = [references] if isinstance(references, RunRef) else list(references)
    records = require_runs(reference_list, runs_dir)
    if len(reference_list) == len(records) == 1 and where is None:
        return select_record(records[0])
    return drop_damaged(select_records(records, where))


def select_record(record: Record) -> Selection:
    """Select a single run, finished or not, without reading its result."""
    return Selection({record.name: record}, {}, [])


def select_records(records: Sequence[Record], where: str | None = None) -> Selection:
    """Separate the finished runs from the others. Raises RequestError where none is finished."""
    runs = list_runs(records)
    if where is not None:
        runs = runs.where(where)
    return runs.selection


def with_previews(selection: Selection, previews_by_dir: dict[Path, RowPreviews]) -> Selection:
    """Return the selection with the rows of previews, without the runs whose rows are damaged.

    `previews_by_dir` keeps the previews of each directory of runs. Raises RequestError where no run
    is left.
    """
    records: dict[str, Record] = {}
    left_out = list(selection.left_out)
    for name, record in selection.records.items():
        try:
            records[name] = open_preview(record, previews_by_dir)
        except RecordError as error:
            left_out.append(LeftOut(name, "damaged", str(error)))
    for previews in previews_by_dir.values():
        previews.save()
    if not records:
        raise RequestError(f"no run can be used: {describe_by_state(left_out)}")
    return Selection(records, {name: selection.results[name] for name in records}, left_out)


def open_preview(
    record: Record, previews_by_dir: dict[Path, RowPreviews], *, grows: bool = False
) -> Record:
    """Return a record with the rows of its preview (`RowPreviews.open`), kept by its directory."""
    directory = record.path.parent
    if directory not in previews_by_dir:
        previews_by_dir[directory] = RowPreviews(directory)
    return previews_by_dir[directory].open(record, grows=grows)


def drop_damaged(selection: Selection) -> Selection:
    """Leave out the runs with damaged rows too, and read each table of the other runs only once.

    Raises RequestError where no run is left.
    """
    left_out = list(selection.left_out)
    snapshots: dict[str, Record] = {
        name: Snapshot(record.path) for name, record in selection.records.items()
    }
    for name, record in snapshots.items():
        try:
            record.check_rows()
            load_patterns(record)
            load_head_scores(record)
            read_findings(selection.results[name], name)
        except RecordError as error:
            left_out.append(LeftOut(name, "damaged", str(error)))
    left_out_names = {run.run for run in left_out}
    undamaged_records = {
        name: record for name, record in snapshots.items() if name not in left_out_names
    }
    if not undamaged_records:
        raise RequestError(f"no run can be used: {describe_by_state(left_out)}")
    results = {name: selection.results[name] for name in undamaged_records}
    return Selection(undamaged_records, results, left_out)
