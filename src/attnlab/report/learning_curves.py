"""Learning curves of many runs, from the rows that they recorded."""

from collections.abc import Mapping
from typing import Any

from attnlab.analysis.arms import group_by_value
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.statistics import interval
from attnlab.figures.curves import CurvePoint, curves
from attnlab.report.arm_cards import ArmStyle, arm_styles
from attnlab.run_record.record import Record

SPLITS = ("validation", "test")


def learning_curves(panel: Panel, records: Mapping[str, Record]) -> list[Any]:
    """Draw the loss and the main metric over steps, for each split with recorded rows."""
    columns = dict.fromkeys(("loss", _main_metric(panel)))
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
    """Draw one column (None: the main metric) of a split's rows; None where there are no rows."""
    styles, column = arm_styles(panel), column or _main_metric(panel)
    rows_by_run = {name: records[name].rows(split) for g in panel.groups for name in _run_names(g)}
    points = [
        point
        for group, style in zip(panel.groups, styles, strict=True)
        for point in _curve_points(group, style, rows_by_run, column)
    ]
    palette = {style.name: style.colour for style in styles}
    return curves(points, f"{split} {column}", palette, width) if points else None


def _main_metric(panel: Panel) -> str:
    return panel.metric.rpartition("/")[2]


def _run_names(group: Group) -> list[str]:
    return [run.name for run in group.runs]


def _curve_points(
    group: Group, style: ArmStyle, rows_by_run: Mapping[str, Any], column: str
) -> list[CurvePoint]:
    """Return a point for each step that all runs of the group recorded.

    Other steps are left out, so that every mean is over the same runs.
    """
    if any(column not in rows_by_run[name].column_names for name in _run_names(group)):
        return []
    values_by_run = {
        name: dict(
            zip(*(rows_by_run[name][key].to_pylist() for key in ("step", column)), strict=True)
        )
        for name in _run_names(group)
    }
    runs_by_seed = group_by_value(group.runs, lambda run: run.result.seed)
    points = []
    for step in sorted(
        set.intersection(*(set(run_values) for run_values in values_by_run.values()))
    ):
        seed_means = [
            sum(values_by_run[run.name][step] for run in seed_runs) / len(seed_runs)
            for seed_runs in runs_by_seed
        ]
        n, mean, low, high = interval(seed_means)
        if mean is not None:
            bounds = (mean if low is None else low, mean if high is None else high)
            points.append(CurvePoint(group.label, style.name, style.depth, n, step, mean, *bounds))
    return points
