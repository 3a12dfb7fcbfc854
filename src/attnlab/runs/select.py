"""Find the runs that a command names, and set those with a result apart from the others."""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from attnlab.errors import RequestError
from attnlab.runs.record import Record, find_runs, resolve


class Selection(NamedTuple):
    """The records that were named."""

    records: dict[str, Record]
    """Those of finished runs, by a name that is theirs alone."""
    results: dict[str, dict[str, Any]]
    """Their run.json."""
    left_out: list[dict[str, str]]
    """Each run without a result, and its state."""


def select(words: Sequence[str], runs_dir: Path | None) -> Selection:
    """Read the runs that directories, prefixes or patterns of names mean; all, if there is none.

    Without `runs_dir`, $ATTNLAB_RUNS or `runs` is searched. Raises RequestError for a word that
    means no run, and where no run is finished.
    """
    runs_dir = runs_dir or Path(os.environ.get("ATTNLAB_RUNS", "runs"))
    selection = Selection({}, {}, [])
    for record in _named(words, runs_dir):
        if (result := record.result) is not None:
            name = str(record.path) if record.name in selection.results else record.name
            selection.records[name], selection.results[name] = record, result
        else:
            selection.left_out.append({"run": record.name, "state": record.state})
    if not selection.results:
        said = said_of(selection.left_out)
        raise RequestError(f"no run is finished: {said}; train them to the end")
    return selection


def said_of(left_out: Sequence[dict[str, str]]) -> str:
    """Count and list the runs without a result."""
    failed = [entry["run"] for entry in left_out if entry["state"] == "failed"]
    others = [f"{e['run']} ({e['state']})" for e in left_out if e["state"] != "failed"]
    parts = [(others, "not finished"), (failed, "failed")]
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
