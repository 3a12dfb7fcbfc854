"""The rows of many runs as learning curves."""

from collections.abc import Mapping
from typing import Any

from attnlab.figures.curves import Point, curves
from attnlab.runs.arms import by_value
from attnlab.runs.compare import Group, Panel
from attnlab.runs.record import Record
from attnlab.runs.statistics import interval
from attnlab.ui.cards import Look, looks

SPLITS = ("validation", "test")


def learning_curves(panel: Panel, records: Mapping[str, Record]) -> list[Any]:
    """Draw the loss and the main metric over steps, for each split whose rows were written."""
    columns = dict.fromkeys(("loss", _headline(panel)))
    charts = [
        learning_curve(panel, records, split, column, width="container")
        for split in SPLITS
        for column in columns
    ]
    return [chart for chart in charts if chart is not None]


def learning_curve(
    panel: Panel,
    records: Mapping[str, Record],
    split: str = "test",
    column: str | None = None,
    width: int | str = 420,
) -> Any:
    """Draw one column (None: the main metric) of the rows of a split; None where there are none."""
    named, column = looks(panel), column or _headline(panel)
    rows = {name: records[name].rows(split) for g in panel.groups for name in _names(g)}
    points = [
        point
        for group, look in zip(panel.groups, named, strict=True)
        for point in _points(group, look, rows, column)
    ]
    palette = {look.name: look.colour for look in named}
    return curves(points, f"{split} {column}", palette, width) if points else None


def _headline(panel: Panel) -> str:
    return panel.metric.rpartition("/")[2]


def _names(group: Group) -> list[str]:
    return [run.name for run in group.runs]


def _points(group: Group, look: Look, rows: Mapping[str, Any], column: str) -> list[Point]:
    """Take the steps that every run of the group has, so that each mean is of the same runs."""
    if any(column not in rows[name].column_names for name in _names(group)):
        return []
    values = {
        name: dict(zip(*(rows[name][key].to_pylist() for key in ("step", column)), strict=True))
        for name in _names(group)
    }
    of_seed = by_value(group.runs, lambda run: run.result["seed"])
    points = []
    for step in sorted(set.intersection(*(set(of_run) for of_run in values.values()))):
        means = [sum(values[run.name][step] for run in runs) / len(runs) for runs in of_seed]
        n, mean, low, high = interval(means)
        if mean is not None:
            bounds = (mean if low is None else low, mean if high is None else high)
            points.append(Point(group.label, look.name, look.depth, n, step, mean, *bounds))
    return points
