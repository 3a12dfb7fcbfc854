"""Results as data: what a recipe's runs measured, small enough to be committed.

    {"schema", "paper", "scale", "date" (of the last run's start), "seeds": [0, ...],
     "made": [{"runs" (how many), "git": {"commit", "dirty"}, "device", "threads", "versions"}],
     "arms": {ARM: {"overrides", "parameters", "headline",
                    "runs": [{"seed", "name", "made" (a place in the list above), "steps",
                              "seconds", "data_hash", "metrics",
                              "tables": {TABLE: {"step": [...], COLUMN: [...]}}}],
                    "failed": [{"seed", "name", "error"}]}}}

They are a function of the run records alone: collecting the same runs again changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.errors import RequestError
from attnlab.reproduce.recipe import Recipe
from attnlab.run_record.result import FailedAttempt, RunResult
from attnlab.run_record.write import make_directory, replace

if TYPE_CHECKING:
    from attnlab.run_record.record import Record

SCHEMA = 1


def path(folder: Path, scale: str) -> Path:
    """Give where the results of a scale are kept, in a paper's folder."""
    return folder / "results" / f"{scale}.json"


def read(folder: Path, scale: str) -> dict[str, Any] | None:
    """Read the results of a scale; None where there are none."""
    file = path(folder, scale)
    try:
        results = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RequestError(f"{file} is damaged ({error}); restore it or delete it") from error
    if results.get("schema") != SCHEMA:
        raise RequestError(
            f"{file} has schema {results.get('schema')}, and this attnlab reads {SCHEMA}"
        )
    return results


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Keep results in a paper's folder."""
    make_directory(folder / "results")
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    replace(path(folder, results["scale"]), content.encode())


def collect(
    recipe: Recipe, finished: Mapping[tuple[str, int], Path], failed: Mapping[tuple[str, int], Path]
) -> dict[str, Any]:
    """Gather the run directories of each arm and seed."""
    # Reading results needs no Arrow; only the tables of a run do.
    from attnlab.run_record.record import Record

    records = {place: Record(directory) for place, directory in finished.items()}
    whole = {place: _result(record) for place, record in records.items()}
    made = _made(list(whole.values()))
    arms = {}
    for arm in recipe.arms:
        ours = [place for place in whole if place[0] == arm]
        first = whole[ours[0]] if ours else None
        arms[arm] = {
            "overrides": recipe.overrides(arm),
            "parameters": first and first.parameters,
            "headline": first and first.headline,
            "runs": [_run(records[at], whole[at], made, recipe.columns) for at in ours],
            "failed": [
                {"seed": at[1], "name": directory.name, "error": _error(Record(directory))}
                for at, directory in failed.items()
                if at[0] == arm
            ],
        }
    return {
        "schema": SCHEMA,
        "paper": recipe.paper,
        "scale": recipe.scale,
        "date": max((result.started[:10] for result in whole.values()), default=None),
        "seeds": sorted({seed for _, seed in [*finished, *failed]}),
        "made": made,
        "arms": arms,
    }


def _result(record: "Record") -> RunResult:
    result = record.result
    assert result is not None, f"{record.path} is not finished"
    return result


def _run(
    record: "Record",
    result: RunResult,
    made: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    maker = _maker(result)
    place = next(at for at, one in enumerate(made) if maker.items() <= one.items())
    tables = {}
    for table, wanted in columns.items():
        rows = record.rows(table)
        names = [name for name in ("step", *wanted) if name in rows.column_names]
        if rows.num_rows:
            tables[table] = {name: rows[name].to_pylist() for name in names}
    kept = ("seed", "steps", "seconds", "data_hash", "metrics")
    measured = {key: getattr(result, key) for key in kept}
    return {"name": record.name, "made": place, **measured, "tables": tables}


def _error(record: "Record") -> str:
    summaries = [attempt.summary for attempt in record.attempts]
    errors = [summary.error for summary in summaries if isinstance(summary, FailedAttempt)]
    return f"{errors[-1].type}: {errors[-1].message}" if errors else "it could not begin"


def _made(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Say by which code and on what the runs were made, each combination once."""
    makers: dict[str, dict[str, Any]] = {}
    for maker in map(_maker, results):
        found = makers.setdefault(json.dumps(maker, sort_keys=True), {"runs": 0, **maker})
        found["runs"] += 1
    return list(makers.values())


def _maker(result: RunResult) -> dict[str, Any]:
    maker = {"git": result.git, "device": result.device, "versions": result.versions}
    return {**maker, "threads": result.identity["trainer"]["threads"]}
