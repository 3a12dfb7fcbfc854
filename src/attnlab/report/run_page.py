"""The served page of one run: what it is, how it learns, what it found, how to make it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from shlex import quote
from typing import Any, ClassVar

from attnlab.analysis.arms import format_value
from attnlab.analysis.run_details import DifferingValue, RunDetails, RunDiff
from attnlab.analysis.run_progress import RunProgress
from attnlab.analysis.units import format_size
from attnlab.figures.run_curves import SPLITS, draw_run_curve
from attnlab.report.frame import ServedFrame, render_page
from attnlab.report.learning_curves import spread
from attnlab.report.view import PageView

MOST_ROWS = 500
"""The number of rows of a split that a curve shows."""


@dataclass(frozen=True)
class RunView(PageView):
    """Which run is shown, and beside which other one, as the address of the page says it."""

    PATH: ClassVar[str] = "/run"
    run: str = ""
    other: str = ""
    """The run that it is compared with."""
    log: bool = False
    """Whether the steps of the curves are on a logarithmic axis."""
    log_y: bool = False


@dataclass(frozen=True)
class RecordedRows:
    """What a run measured while it trained, on each split: the columns by name, with the steps."""

    columns_by_split: Mapping[str, Mapping[str, Sequence[Any]]]

    @property
    def names(self) -> list[str]:
        """The quantities, those of validation first."""
        order = ("validation", "test", "train")
        return list(
            dict.fromkeys(
                name
                for split in order
                for name in self.columns_by_split.get(split, {})
                if name != "step"
            )
        )

    def points(self, name: str) -> tuple[dict[str, list[tuple[int, float]]], str]:
        """Return the (step, value) of a quantity on each split, and what is left out of them."""
        points_by_split, num_recorded, num_not_finite = {}, 0, 0
        for split in SPLITS:
            columns = self.columns_by_split.get(split, {})
            if name not in columns:
                continue
            rows = zip(columns["step"], columns[name], strict=True)
            points = [(step, value) for step, value in rows if value is not None]
            finite_points = [point for point in points if isfinite(point[1])]
            num_not_finite += len(points) - len(finite_points)
            num_recorded += len(finite_points)
            # The last row is what the run has come to.
            points_by_split[split] = [
                finite_points[n] for n in spread(len(finite_points), MOST_ROWS)
            ]
        num_drawn = sum(map(len, points_by_split.values()))
        remarks = []
        if num_drawn < num_recorded:
            remarks.append(f"drawn: {num_drawn:,} of {num_recorded:,} values, evenly spread")
        if num_not_finite:
            remarks.append(f"{num_not_finite:,} values are no finite numbers")
        return points_by_split, "; ".join(remarks)


def run_page(
    details: RunDetails,
    rows: RecordedRows,
    view: RunView,
    served: ServedFrame,
    *,
    progress: RunProgress | None = None,
    diff: RunDiff | None = None,
    others: Sequence[str] = (),
    failure: str | None = None,
    log: str = "",
    notice: str | None = None,
) -> str:
    """Return the page of a run; `others` are runs that it can be compared with."""
    charts = run_charts(rows, view)
    return render_page(
        "run.html",
        details.run,
        "run",
        {"run": details.run, "charts": [chart.to_dict() for chart in charts]},
        has_charts=bool(charts),
        served=served,
        notice=notice,
        details=details,
        view=view,
        progress=progress,
        charts=charts,
        metrics={name: f"{value:.6g}" for name, value in details.metrics.items()},
        costs=_texts(details.costs),
        config=_texts(details.config),
        environment=_texts({**details.versions, **(details.git or {})}),
        diff_tables=[] if diff is None else _diff_tables(diff),
        diff=diff,
        others=others,
        failure=failure,
        log=log,
        command=_train_command(details),
        size=format_size(details.size),
        checkpoint_size=format_size(details.checkpoint_size),
    )


def run_charts(rows: RecordedRows, view: RunView) -> list[Any]:
    """Draw a chart for each quantity that a run measured while it trained."""
    charts = []
    for name in rows.names:
        points_by_split, remarks = rows.points(name)
        if any(points_by_split.values()):
            caption = "; ".join(filter(None, ["one run, unsmoothed", remarks]))
            charts.append(
                draw_run_curve(name, points_by_split, caption, log_x=view.log, log_y=view.log_y)
            )
    return charts


def _diff_tables(diff: RunDiff) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return the differences as tables of key, this run's value and the other's."""
    parts: list[tuple[str, Sequence[DifferingValue]]] = [
        ("config", diff.config),
        ("metrics", diff.metrics),
        ("data and cost", diff.costs),
        ("environment", diff.environment),
    ]
    return [
        (title, [(pair.key, _text(pair.first), _text(pair.second)) for pair in pairs])
        for title, pairs in parts
        if pairs
    ]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)


def _train_command(details: RunDetails) -> str:
    if not details.overrides:
        return ""
    config_dir = [f"--config-dir {quote(details.config_dir)}"] if details.config_dir else []
    return " ".join(["attnlab train", *config_dir, *map(quote, details.overrides)])
