"""The runs of a sweep as a grid: one factor down, one across, and what is in each cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnlab.analysis.arms import COST_FIELDS, format_value, label_keys, resolve_key, suggest_key
from attnlab.analysis.report import Report
from attnlab.analysis.run_list import ListedRun, RunList
from attnlab.errors import RequestError
from attnlab.run_record.direction import lower_is_better

SEED = "seed"


@dataclass(frozen=True)
class GridCell:
    """The runs at one value of the row's key and one of the column's."""

    runs: Sequence[str]
    """Their names; none where no run has these values."""
    states: Mapping[str, int]
    """The number of runs in each state."""
    n: int
    """The number of runs with the metric."""
    mean: float | None
    """Over these runs; None where there is none."""
    faults: Sequence[str]
    """Why runs failed, or cannot be read."""


@dataclass(frozen=True)
class SweepGrid(Report):
    """Runs as a grid of cells."""

    row_key: str
    column_key: str
    row_values: Sequence[Any]
    column_values: Sequence[Any]
    cells: Sequence[Sequence[GridCell]]
    """A row of cells for each row value."""
    keys: Sequence[str]
    """All keys in which the runs differ, and the seed: what rows and columns can be."""
    averaged_keys: Sequence[str]
    """The other keys in which the runs of one cell differ."""
    metric: str | None
    metrics: Sequence[str]
    """All metrics and costs that the cells can show."""
    higher_is_better: bool


def sweep_grid(
    runs: RunList,
    row_key: str | None = None,
    column_key: str | None = None,
    metric: str | None = None,
) -> SweepGrid:
    """Return the grid of some runs.

    By default the rows are the first key in which the runs differ, the columns the second (or the
    seed), and the metric is the main one. Damaged runs, whose config is unknown, are in no cell.
    Raises RequestError for a key or metric that the runs do not have.
    """
    readable_runs = [run for run in runs if run.state != "damaged"]
    configs = [
        {key: value for key, value in run.config.items() if key != SEED} for run in readable_runs
    ]
    keys = [*(label_keys(configs) if configs else []), SEED]
    existing_keys = {key for run in readable_runs for key in run.config}
    row_key = keys[0] if row_key is None else _require_key(row_key, existing_keys)
    other_keys = [key for key in keys if key != row_key]
    if column_key is None:
        column_key = other_keys[0] if other_keys else row_key
    else:
        column_key = _require_key(column_key, existing_keys)
    metrics = list(dict.fromkeys(name for run in readable_runs for name in sorted(run.metrics)))
    if metric is not None and metric not in (*metrics, *COST_FIELDS):
        raise RequestError(f"no run has {metric!r}; {suggest_key(metric, metrics)}")
    results = [run.result for run in readable_runs if run.result is not None]
    if metric is None and results:
        metric = results[0].headline
    row_values = _distinct_values(readable_runs, row_key)
    column_values = _distinct_values(readable_runs, column_key)
    cells = [
        [
            _grid_cell(
                [
                    run
                    for run in readable_runs
                    if format_value(run.config.get(row_key)) == format_value(row_value)
                    and format_value(run.config.get(column_key)) == format_value(column_value)
                ],
                metric,
            )
            for column_value in column_values
        ]
        for row_value in row_values
    ]
    return SweepGrid(
        row_key,
        column_key,
        row_values,
        column_values,
        cells,
        keys=keys,
        averaged_keys=[key for key in keys if key not in (row_key, column_key)],
        metric=metric,
        metrics=[*metrics, *COST_FIELDS],
        higher_is_better=_higher_is_better(results, metric),
    )


def _grid_cell(runs: Sequence[ListedRun], metric: str | None) -> GridCell:
    values = [value for run in runs if (value := _value(run, metric)) is not None]
    faults = [fault for run in runs if (fault := run.failure) is not None]
    return GridCell(
        runs=[run.name for run in runs],
        states=Counter(run.state for run in runs),
        n=len(values),
        mean=sum(values) / len(values) if values else None,
        faults=list(dict.fromkeys(faults)),
    )


def _value(run: ListedRun, metric: str | None) -> float | None:
    """Return a metric or cost of a run; None where it has none."""
    if run.result is None or metric is None:
        return None
    value = getattr(run.result, metric) if metric in COST_FIELDS else run.metrics.get(metric)
    return None if value is None else float(value)


def _distinct_values(runs: Sequence[ListedRun], key: str) -> list[Any]:
    """Return the values at a key: numbers in their order, others as they first occur."""
    values = {format_value(run.config.get(key)): run.config.get(key) for run in runs}
    if all(isinstance(value, (int, float)) for value in values.values()):
        return sorted(values.values())
    return list(values.values())


def _higher_is_better(results: Sequence[Any], metric: str | None) -> bool:
    if metric is None or not results or metric in COST_FIELDS:
        return False
    if metric == results[0].headline:
        return results[0].higher_is_better
    return not lower_is_better(metric, results[0].lower_is_better)


def _require_key(name: str, existing_keys: set[str]) -> str:
    key = resolve_key(name, existing_keys)
    if key is None:
        raise RequestError(f"the runs have no key {name!r}; {suggest_key(name, existing_keys)}")
    return key
