"""The rows of many runs as learning curves."""

from collections.abc import Mapping
from typing import Any

from attnlab.analysis.arms import by_value
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.statistics import interval
from attnlab.figures.curves import Point, curves
from attnlab.report.arm_cards import ArmStyle, arm_styles
from attnlab.run_record.record import Record

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
    styles, column = arm_styles(panel), column or _headline(panel)
    rows = {name: records[name].rows(split) for g in panel.groups for name in _names(g)}
    points = [
        point
        for group, style in zip(panel.groups, styles, strict=True)
        for point in _points(group, style, rows, column)
    ]
    palette = {style.name: style.colour for style in styles}
    return curves(points, f"{split} {column}", palette, width) if points else None


def _headline(panel: Panel) -> str:
    return panel.metric.rpartition("/")[2]


def _names(group: Group) -> list[str]:
    return [run.name for run in group.runs]


def _points(group: Group, style: ArmStyle, rows: Mapping[str, Any], column: str) -> list[Point]:
    """Take the steps that every run of the group has, so that each mean is of the same runs."""
    if any(column not in rows[name].column_names for name in _names(group)):
        return []
    values = {
        name: dict(zip(*(rows[name][key].to_pylist() for key in ("step", column)), strict=True))
        for name in _names(group)
    }
    of_seed = by_value(group.runs, lambda run: run.result.seed)
    points = []
    for step in sorted(set.intersection(*(set(of_run) for of_run in values.values()))):
        means = [sum(values[run.name][step] for run in runs) / len(runs) for runs in of_seed]
        n, mean, low, high = interval(means)
        if mean is not None:
            bounds = (mean if low is None else low, mean if high is None else high)
            points.append(Point(group.label, style.name, style.depth, n, step, mean, *bounds))
    return points
