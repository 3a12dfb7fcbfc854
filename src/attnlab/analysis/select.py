"""Find the runs that a command names, and set those with a result apart from the others."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from attnlab.analysis.findings import findings
from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError, RequestError
from attnlab.printable import one_line
from attnlab.run_record import patterns
from attnlab.run_record.head_scores import head_scores
from attnlab.run_record.record import Record, Snapshot, find_runs, resolve
from attnlab.run_record.result import RunResult


class Selection(NamedTuple):
    """The records that were named."""

    records: dict[str, Record]
    """Those of finished runs, by a name that is theirs alone."""
    results: dict[str, RunResult]
    left_out: list[dict[str, str]]
    """Each run without a result that can be used: its state, and why where it is damaged."""


def select(words: Sequence[str], runs_dir: Path | None) -> Selection:
    """Read the runs that directories, prefixes or patterns of names mean; all, if there is none.

    Without `runs_dir`, $ATTNLAB_RUNS or `runs` is searched. Raises RequestError for a word that
    means no run, and where no run is finished.
    """
    return of_records(_named(words, runs_dir or default_runs_dir()))


def select_any(words: Sequence[str], runs_dir: Path | None) -> Selection:
    """Read the runs that are meant, without damage; one that is named by itself may be unfinished.

    Raises RequestError as `select` does.
    """
    if len(words) == 1 and (Path(words[0]).exists() or not set(words[0]) & set("*?[")):
        return of_one(resolve(words[0], runs_dir or default_runs_dir()))
    return without_damage(select(words, runs_dir))


def of_one(record: Record) -> Selection:
    """Select a run by itself, finished or not; its result is left to whoever needs it."""
    return Selection({record.name: record}, {}, [])


def of_records(records: Sequence[Record]) -> Selection:
    """Set the finished runs apart from the others. Raises RequestError where there are none."""
    selection = Selection({}, {}, [])
    for record in records:
        try:
            result = record.result
            if result is None:
                selection.left_out.append({"run": record.name, "state": record.state})
                continue
        except RecordError as error:
            left = {"run": record.name, "state": "damaged", "why": str(error)}
            selection.left_out.append(left)
            continue
        name = str(record.path) if record.name in selection.results else record.name
        selection.records[name], selection.results[name] = record, result
    if not selection.results:
        said = said_of(selection.left_out)
        if all(left["state"] == "damaged" for left in selection.left_out):
            raise RequestError(f"no run can be used: {said}")
        raise RequestError(f"no run is finished: {said}; train them to the end")
    return selection


def without_damage(selection: Selection) -> Selection:
    """Leave out the runs whose rows are damaged too; of the others, each table is read once.

    Raises RequestError where no run is left.
    """
    left_out = list(selection.left_out)
    records: dict[str, Record] = {
        name: Snapshot(record.path) for name, record in selection.records.items()
    }
    for name, record in records.items():
        try:
            record.check_rows()
            patterns.recorded(record)
            head_scores(record)
            findings(selection.results[name], name)
        except RecordError as error:
            left_out.append({"run": name, "state": "damaged", "why": str(error)})
    damaged = {entry["run"] for entry in left_out}
    sound = {name: record for name, record in records.items() if name not in damaged}
    if not sound:
        raise RequestError(f"no run can be used: {said_of(left_out)}")
    return Selection(sound, {name: selection.results[name] for name in sound}, left_out)


def said_of(left_out: Sequence[Mapping[str, str]]) -> str:
    """Count and list the runs without a result."""
    failed = [entry["run"] for entry in left_out if entry["state"] == "failed"]
    damaged = [f"{e['run']} ({one_line(e['why'])})" for e in left_out if e["state"] == "damaged"]
    others = [
        f"{e['run']} ({e['state']})" for e in left_out if e["state"] not in ("failed", "damaged")
    ]
    parts = [(others, "not finished"), (failed, "failed"), (damaged, "damaged")]
    return "; ".join(f"{len(runs)} {what}: {', '.join(runs)}" for runs, what in parts if runs)


def _named(words: Sequence[str], runs_dir: Path) -> list[Record]:
    records = [] if words else find_runs(runs_dir)
    for word in words:
        named = [] if Path(word).exists() else re.findall(r"[*?[]", word)
        found = [r for r in find_runs(runs_dir) if fnmatchcase(r.name, word)] if named else []
        if named and not found:
            raise RequestError(f"no run in {runs_dir} has a name like {word!r}")
        records += found or [resolve(word, runs_dir)]
    if not records:
        raise RequestError(
            f"{runs_dir} holds no runs; `attnlab train` makes some, --runs-dir looks elsewhere"
        )
    return list({record.path.resolve(): record for record in records}.values())
