"""What became of the mutants, as data and as Markdown."""

import datetime
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from bench.mutants.mutation import Identity, Mutant, match
from bench.mutants.run import Status, Verdict

HEAD = """\
# Faults that tests notice

Written by `make mutants`: {count} faults, drawn with seed {seed} over all rooms of src, each put
alone into a copy of the tree. The tests (`-m "{marks}"`) that reach it
run until one fails, the quickest first, for two minutes at most. A fault is caught where a test
fails with it twice and passes without it.
Commit {commit}, {date}.
"""


def to_json(
    settings: dict[str, Any], tree: Path, verdicts: Sequence[tuple[Mutant, Verdict]]
) -> dict[str, Any]:
    """Return all that is known of a run."""
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, cwd=tree, capture_output=True, text=True).stdout.strip()
    rows = [
        {
            "id": str(mutant.identity),
            "room": mutant.identity.room,
            "line": mutant.line,
            "source": mutant.source,
            "before": mutant.before,
            "after": mutant.after,
            **verdict._asdict(),
        }
        for mutant, verdict in sorted(verdicts, key=lambda pair: pair[0].identity)
    ]
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return {"schema": 1, "commit": commit, "date": date, **settings, "mutants": rows}


def find_again(earlier: dict[str, Any], mutants: Sequence[Mutant]) -> dict[str, Mutant]:
    """Return the mutants of an earlier run as they stand now, by their id then."""
    again = {}
    for row in earlier["mutants"]:
        identity = parse(row["id"])
        mutant = match(identity, row["source"], row["before"], mutants)
        if mutant is not None:
            again[row["id"]] = mutant
    return again


def parse(text: str) -> Identity:
    """Read a mutant's id."""
    file, function, kind, ordinal = text.split(":")
    return Identity(file, function, kind, int(ordinal))


def lost(
    results: dict[str, Any], earlier: dict[str, Any], mutants: Sequence[Mutant]
) -> tuple[list[str], list[str]]:
    """Return which of those caught earlier are not caught now, and which the code has no more."""
    statuses = {row["id"]: row["status"] for row in results["mutants"]}
    again = find_again(earlier, mutants)
    caught = [row["id"] for row in earlier["mutants"] if row["status"] == "caught"]
    missed = [
        str(again[name].identity)
        for name in caught
        if name in again and statuses.get(str(again[name].identity), "caught") != "caught"
    ]
    return missed, [name for name in caught if name not in again]


def text(results: dict[str, Any], earlier: dict[str, Any] | None, mutants: Sequence[Mutant]) -> str:
    """Return the table of a run: counts by room, what was not caught, and what is lost."""
    rows = results["mutants"]
    count = len(rows)
    lines = [HEAD.format(count=count, **results), *_counts(rows), ""]
    for status in get_args(Status)[1:]:
        if of_status := [row for row in rows if row["status"] == status]:
            lines += [f"## {status.capitalize()}", "", *_changes(of_status), ""]
    if earlier is not None:
        missed, gone = lost(results, earlier, mutants)
        lines += [f"## Against commit {earlier['commit']} ({earlier['date']})", ""]
        lines += [
            "Caught then and not now:" if missed else "All that was caught then is caught now."
        ]
        lines += ["", *(f"- `{name}`" for name in missed)] if missed else []
        if gone:
            lines += ["", "Caught then, and no longer in the code:", ""]
            lines += [f"- `{name}`" for name in gone]
        lines.append("")
    return "\n".join(lines)


def _counts(rows: list[dict[str, Any]]) -> Iterator[str]:
    statuses = get_args(Status)
    yield f"| room | faults | {' | '.join(statuses)} |"
    yield "|---|" + "---|" * (1 + len(statuses))
    rooms = sorted({row["room"] for row in rows})
    for room in [*rooms, "all"]:
        members = [row["status"] for row in rows if room in (row["room"], "all")]
        counts = Counter(members)
        cells = [str(counts[status] or "") for status in statuses]
        yield f"| {room} | {len(members)} | {' | '.join(cells)} |"


def _changes(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| place | line | change | tests run |"
    yield "|---|---|---|---|"
    for row in rows:
        place = f"{row['id'].partition(':')[0]}:{row['line']}"
        change = f"{_code(row['before'])} to {_code(row['after'])}"
        tests = f"{row['tests_run']} of {row['tests_chosen']}"
        yield f"| {place} | {_code(row['source'])} | {change} | {tests} |"


def _code(source: str) -> str:
    """Quote the first line of a text for a cell of a table."""
    line, _, more = source.partition("\n")
    return f"`` {line}{' ...' if more else ''} ``".replace("|", r"\|")


def read(path: Path) -> dict[str, Any] | None:
    """Read the results of an earlier run; None where there are none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
