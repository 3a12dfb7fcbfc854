"""Results as data: the measurements of a recipe's runs, small enough to be committed.

    {"schema", "paper", "scale", "date" (of the last run's start), "seeds": [0, ...],
     "made": [{"runs" (how many), "git": {"commit", "dirty"}, "device", "threads", "versions"}],
     "config_dir" (the --config-dir as it was given, or null; missing in older results),
     "arms": {ARM: {"overrides", "parameters", "headline",
                    "runs": [{"seed", "name", "made" (a place in the list above), "steps",
                              "seconds", "data_hash", "metrics",
                              "tables": {TABLE: {"step": [...], COLUMN: [...]}}}],
                    "failed": [{"seed", "name", "error"}]}}}

They are a function of the run records and the recipe: the same command again changes nothing.
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
    """Return the path of the results of a scale in a paper's folder."""
    return folder / "results" / f"{scale}.json"


def read(folder: Path, scale: str) -> dict[str, Any] | None:
    """Load the results of a scale; None if there are none."""
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
    """Write results to a paper's folder."""
    make_directory(folder / "results")
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    replace(path(folder, results["scale"]), content.encode())


def collect(
    recipe: Recipe,
    finished: Mapping[tuple[str, int], Path],
    failed: Mapping[tuple[str, int], Path],
    config_dir: Path | None = None,
) -> dict[str, Any]:
    """Return the results of the finished and failed runs, given by arm and seed."""
    # The record needs Arrow, which the other functions here do not.
    from attnlab.run_record.record import Record

    records = {key: Record(directory) for key, directory in finished.items()}
    results = {key: _finished_result(record) for key, record in records.items()}
    makers = _count_makers(list(results.values()))
    arms = {}
    for arm in recipe.arms:
        arm_keys = [key for key in results if key[0] == arm]
        first_result = results[arm_keys[0]] if arm_keys else None
        arms[arm] = {
            "overrides": recipe.overrides(arm),
            "parameters": first_result and first_result.parameters,
            "headline": first_result and first_result.headline,
            "runs": [
                _run_entry(records[key], results[key], makers, recipe.columns) for key in arm_keys
            ],
            "failed": [
                {
                    "seed": key[1],
                    "name": directory.name,
                    "error": _describe_error(Record(directory)),
                }
                for key, directory in failed.items()
                if key[0] == arm
            ],
        }
    return {
        "schema": SCHEMA,
        "paper": recipe.paper,
        "scale": recipe.scale,
        "date": max((result.started[:10] for result in results.values()), default=None),
        "seeds": sorted({seed for _, seed in [*finished, *failed]}),
        "made": makers,
        "config_dir": None if config_dir is None else str(config_dir),
        "arms": arms,
    }


def _finished_result(record: "Record") -> RunResult:
    result = record.result
    assert result is not None, f"{record.path} is not finished"
    return result


def _run_entry(
    record: "Record",
    result: RunResult,
    makers: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    maker = _maker_of(result)
    maker_index = next(
        index for index, entry in enumerate(makers) if maker.items() <= entry.items()
    )
    tables = {}
    for table, column_names in columns.items():
        rows = record.rows(table)
        names = [name for name in ("step", *column_names) if name in rows.column_names]
        if rows.num_rows:
            tables[table] = {name: rows[name].to_pylist() for name in names}
    field_names = ("seed", "steps", "seconds", "data_hash", "metrics")
    fields = {key: getattr(result, key) for key in field_names}
    return {"name": record.name, "made": maker_index, **fields, "tables": tables}


def _describe_error(record: "Record") -> str:
    summaries = [attempt.summary for attempt in record.attempts]
    errors = [summary.error for summary in summaries if isinstance(summary, FailedAttempt)]
    return f"{errors[-1].type}: {errors[-1].message}" if errors else "it could not begin"


def _count_makers(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return each combination of code and hardware that made runs, with their number."""
    makers_by_json: dict[str, dict[str, Any]] = {}
    for maker in map(_maker_of, results):
        counted_maker = makers_by_json.setdefault(
            json.dumps(maker, sort_keys=True), {"runs": 0, **maker}
        )
        counted_maker["runs"] += 1
    return list(makers_by_json.values())


def _maker_of(result: RunResult) -> dict[str, Any]:
    maker = {"git": result.git, "device": result.device, "versions": result.versions}
    return {**maker, "threads": result.identity["trainer"]["threads"]}
