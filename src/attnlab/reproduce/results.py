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
from attnlab.run_record.write import make_directory, replace_file

if TYPE_CHECKING:
    from attnlab.run_record.record import Record

SCHEMA = 1


def results_path(folder: Path, scale: str) -> Path:
    """Return the path of the results of a scale in a paper's folder."""
    return folder / "results" / f"{scale}.json"


def read_results(folder: Path, scale: str) -> dict[str, Any] | None:
    """Load the results of a scale; None if there are none."""
    path = results_path(folder, scale)
    try:
        results = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RequestError(f"{path} is damaged ({error}); restore it or delete it") from error
    if results.get("schema") != SCHEMA:
        raise RequestError(
            f"{path} has schema {results.get('schema')}, and this attnlab reads {SCHEMA}"
        )
    return results


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results to a paper's folder."""
    make_directory(folder / "results")
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    replace_file(results_path(folder, results["scale"]), content.encode())


def collect_results(
    recipe: Recipe,
    finished_dirs: Mapping[tuple[str, int], Path],
    failed_dirs: Mapping[tuple[str, int], Path],
    config_dir: Path | None = None,
) -> dict[str, Any]:
    """Return the results of the finished and failed runs, whose directories are by arm and seed."""
    # The record needs Arrow, which the other functions here do not.
    from attnlab.run_record.record import Record

    records = {key: Record(run_dir) for key, run_dir in finished_dirs.items()}
    results = {key: _finished_result(record) for key, record in records.items()}
    makers = _count_makers(list(results.values()))
    entry_by_arm = {}
    for arm in recipe.arms:
        arm_keys = [key for key in results if key[0] == arm]
        first_result = results[arm_keys[0]] if arm_keys else None
        entry_by_arm[arm] = {
            "overrides": recipe.overrides(arm),
            "parameters": first_result and first_result.parameters,
            "headline": first_result and first_result.headline,
            "runs": [
                _run_entry(records[key], results[key], makers, recipe.columns_by_table)
                for key in arm_keys
            ],
            "failed": [
                {"seed": seed, "name": run_dir.name, "error": _describe_error(Record(run_dir))}
                for (failed_arm, seed), run_dir in failed_dirs.items()
                if failed_arm == arm
            ],
        }
    return {
        "schema": SCHEMA,
        "paper": recipe.paper,
        "scale": recipe.scale,
        "date": max((result.started[:10] for result in results.values()), default=None),
        "seeds": sorted({seed for _, seed in [*finished_dirs, *failed_dirs]}),
        "made": makers,
        "config_dir": None if config_dir is None else str(config_dir),
        "arms": entry_by_arm,
    }


def _finished_result(record: "Record") -> RunResult:
    result = record.result
    assert result is not None, f"{record.path} is not finished"
    return result


def _run_entry(
    record: "Record",
    result: RunResult,
    makers: Sequence[Mapping[str, Any]],
    columns_by_table: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the entry of a finished run, with those columns of its tables that it has."""
    maker = _maker_of(result)
    maker_index = next(
        index
        for index, counted_maker in enumerate(makers)
        if maker.items() <= counted_maker.items()
    )
    tables = {}
    for table, columns in columns_by_table.items():
        rows = record.rows(table)
        if rows.num_rows:
            tables[table] = {
                column: rows[column].to_pylist()
                for column in ("step", *columns)
                if column in rows.column_names
            }
    field_names = ("seed", "steps", "seconds", "data_hash", "metrics")
    fields = {name: getattr(result, name) for name in field_names}
    return {"name": record.name, "made": maker_index, **fields, "tables": tables}


def _describe_error(record: "Record") -> str:
    """Return the last error of a run in one line."""
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
    """Return the code and the hardware that made a run."""
    return {
        "git": result.git,
        "device": result.device,
        "versions": result.versions,
        "threads": result.identity["trainer"]["threads"],
    }
