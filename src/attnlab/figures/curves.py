"""Curves of many arms over steps or over a length: means, intervals and single seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import (
    DASHES,
    INK,
    MOST_BANDS,
    REST,
    describe_log_axes,
    frame_chart,
    table_data,
)

MOST_DOTS = 6
"""The number of values of x up to which each point of a line is drawn as a dot."""


class CurvePoint(NamedTuple):
    """The mean of n seeds at one place of the x axis, and the interval, if there is one."""

    x: float | int
    n: int
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ArmCurve:
    """The curve of one arm."""

    title: str
    """What distinguishes the arm from the others."""
    colour: str | None
    """None for an arm that is drawn thin and grey."""
    points: Sequence[CurvePoint]
    dash: int = 0
    """The index of its dashes in `DASHES`."""
    seed_curves: Sequence[Sequence[tuple[float | int, float]]] = ()
    """The curve (x, value) of each seed."""
    seeds: Sequence[int] = ()
    """The numbers of the seeds, in the order of their curves."""


@dataclass(frozen=True)
class RunCurve:
    """The curve of a single run that is in no mean, as it has no result."""

    run: str
    state: str
    arm: str | None
    """The title of its arm; None for an arm of which no run is drawn otherwise."""
    colour: str | None
    """The colour of its arm; None for grey."""
    points: Sequence[tuple[float, float]]


class XAxis(NamedTuple):
    """The x axis: its title and its scale."""

    title: str = "step"
    log: bool = False
    doubling: bool = False
    """Whether x are a few lengths, each twice the one before it."""


class YAxis(NamedTuple):
    """The y axis: its title and its scale."""

    title: str | None = None
    log: bool = False


def draw_curves(
    arms: Sequence[ArmCurve],
    title: str,
    caption: Sequence[str] = (),
    *,
    x: XAxis | None = None,
    y: YAxis | None = None,
    width: int | str = 420,
    legend: bool = True,
    runs: Sequence[RunCurve] = (),
) -> Any:
    """Draw the mean of each arm, unsmoothed, with the interval as a band and seeds as faint lines.

    Arms without a colour are thin and grey, behind the others. Bands are drawn for up to
    `MOST_BANDS` coloured arms. The frame fits the means; seeds and bands are clipped there, and a
    line of the caption says which leave it. Without a `legend`, the figure stands on a page, whose
    script sets the parameter `chosen`: the arms with these titles come forward, each with its band.
    What is not above 0 has no place on a logarithmic axis; an axis on which nothing is left is
    linear. The caption says both. `runs` are dashed, and in no mean.
    """
    x, y_axis = x or XAxis(), y or YAxis()
    arms, log_x, log_y, axis_lines = _place_on_axes(arms, x.log, y_axis.log)
    runs = [
        replace(
            run,
            points=[p for p in run.points if (p[0] > 0 or not log_x) and (p[1] > 0 or not log_y)],
        )
        for run in runs
    ]
    x = x._replace(log=log_x)
    frame = _mean_frame(arms, log_y)
    y_encoding = partial(alt.Y, title=y_axis.title, scale=_y_scale(frame, log_y))
    x_encoding = _encode_x(x, sorted({point.x for arm in arms for point in arm.points}))
    coloured_arms = [arm for arm in arms if arm.colour is not None]
    colour = _colour_encoding(coloured_arms, legend)
    layers = []
    if len(coloured_arms) < len(arms):
        layers.append(_draw_grey_arms(x, x_encoding, y_encoding))
    if any(arm.seed_curves for arm in coloured_arms):
        layers.append(_draw_seed_curves(coloured_arms, x_encoding, y_encoding, colour))
    shows_all_bands = len(coloured_arms) <= MOST_BANDS
    has_intervals = any(p.low is not None for arm in coloured_arms for p in arm.points)
    has_bands = has_intervals and (shows_all_bands or not legend)
    if has_bands:
        opacity = 0.16 if shows_all_bands else 0
        layers.append(_draw_bands(x_encoding, y_encoding, colour, opacity, log_y=log_y))
    dashes = _dash_encoding(coloured_arms, legend)
    has_dots = x.doubling or len({p.x for arm in coloured_arms for p in arm.points}) <= MOST_DOTS
    if any(run.points for run in runs):
        layers += _draw_runs(runs, x, x_encoding, y_encoding)
    layers += _draw_means(x, x_encoding, y_encoding, colour, dashes, has_dots=has_dots)
    caption = [*caption, *axis_lines, *_describe_clipped(coloured_arms, frame, has_bands, runs)]
    chart = alt.layer(*layers, data=table_data(_point_rows(arms))).add_params(
        alt.param(name="chosen", value=[])
    )
    return frame_chart(
        chart,
        title,
        caption,
        f"{title}, {' '.join(caption)}: {'; '.join(arm.title for arm in arms)}",
        width=width,
        height=240,
    )


IS_CHOSEN = "indexof(chosen, datum.arm) >= 0"


class Frame(NamedTuple):
    """The lowest and the highest y that the figure shows."""

    low: float
    high: float


def _place_on_axes(
    arms: Sequence[ArmCurve], log_x: bool, log_y: bool
) -> tuple[Sequence[ArmCurve], bool, bool, list[str]]:
    """Return what of some arms has a place on the axes, which are logarithmic, and a caption."""

    def without_nonpositive(arm: ArmCurve, of_x: bool, of_y: bool) -> ArmCurve:
        return replace(
            arm,
            points=[p for p in arm.points if (p.x > 0 or not of_x) and (p.mean > 0 or not of_y)],
            seed_curves=[
                [(x, y) for x, y in curve if (x > 0 or not of_x) and (y > 0 or not of_y)]
                for curve in arm.seed_curves
            ],
        )

    lines = []
    for axis, is_log in (("x", log_x), ("y", log_y)):
        if not is_log:
            continue
        placed_arms = [without_nonpositive(arm, axis == "x", axis == "y") for arm in arms]
        num_points, num_placed = (sum(len(a.points) for a in some) for some in (arms, placed_arms))
        if not num_placed:
            lines.append(f"{axis} is linear, as no value is above 0")
            log_x, log_y = log_x and axis != "x", log_y and axis != "y"
            continue
        arms = placed_arms
        if num_placed < num_points:
            lines.append(
                f"not drawn, as {axis} is not above 0: "
                f"{num_points - num_placed:,} of {num_points:,} points"
            )
    return arms, log_x, log_y, [*describe_log_axes(log_x, log_y), *lines]


def _y_scale(frame: "Frame", log: bool) -> alt.Scale:
    domain = list(frame)
    if log:
        return alt.Scale(type="log", domain=domain, nice=False)
    return alt.Scale(domain=domain, nice=False, zero=False)


def _mean_frame(arms: Sequence[ArmCurve], log: bool = False) -> Frame:
    """Return the frame that fits the means of all arms, with a margin."""
    means = [point.mean for arm in arms for point in arm.points]
    if log:
        factor = (max(means) / min(means)) ** 0.04 if max(means) > min(means) else 1.04
        return Frame(_six_digits(min(means) / factor), _six_digits(max(means) * factor))
    margin = 0.04 * (max(means) - min(means)) or 0.04
    return Frame(_six_digits(min(means) - margin), _six_digits(max(means) + margin))


def _describe_clipped(
    arms: Sequence[ArmCurve], frame: Frame, has_bands: bool, runs: Sequence[RunCurve]
) -> list[str]:
    """Return a line on the curves and bands that leave the frame; none where all lie inside."""
    run_values = [[value for _, value in run.points] for run in runs]
    seed_values = [[value for _, value in curve] for arm in arms for curve in arm.seed_curves]
    band_values = [
        [value for point in arm.points for value in (point.low, point.high) if value is not None]
        for arm in arms
    ]
    parts = []
    for name, curves in (
        ("seed", seed_values),
        ("dashed run", run_values),
        ("band", band_values if has_bands else []),
    ):
        beyond = [
            [value for value in values if not frame.low <= value <= frame.high] for values in curves
        ]
        clipped = [values for values in beyond if values]
        if clipped:
            lowest, highest = min(map(min, clipped)), max(map(max, clipped))
            ends = [f"down to {lowest:.3g}"] if lowest < frame.low else []
            ends += [f"up to {highest:.3g}"] if highest > frame.high else []
            num_curves = sum(map(bool, curves))
            plural = "s" if num_curves > 1 else ""
            parts.append(f"{len(clipped)} of {num_curves} {name}{plural}, {', '.join(ends)}")
    return [f"cut at the frame: {'; '.join(parts)}"] if parts else []


def _draw_grey_arms(x: XAxis, x_encoding: Any, y: Callable[[str], alt.Y]) -> alt.Chart:
    """Draw the means of arms as thin grey lines; a line that a reader chose is dark."""
    return (
        alt.Chart()
        .transform_filter("datum.coloured == 0")
        .mark_line(clip=True)
        .encode(
            y=y("mean:Q"),
            color=alt.condition(IS_CHOSEN, alt.value(INK), alt.value(REST)),
            strokeWidth=alt.condition(IS_CHOSEN, alt.value(2.5), alt.value(1)),
            opacity=alt.condition(IS_CHOSEN, alt.value(1), alt.value(0.45)),
            tooltip=_tooltip(x),
            x=x_encoding,
            detail="arm:N",
        )
    )


def _draw_seed_curves(
    arms: Sequence[ArmCurve], x_encoding: Any, y: Callable[[str], alt.Y], colour: Any
) -> alt.Chart:
    """Draw the curve of each seed as a faint line."""
    rows = [
        {
            "arm": arm.title,
            "seed": number,
            "x": _six_digits(x),
            "mean": _six_digits(value),
        }
        for arm in arms
        if arm.seed_curves
        for number, seed_curve in zip(arm.seeds, arm.seed_curves, strict=True)
        for x, value in seed_curve
    ]
    return (
        alt.Chart(table_data(rows))
        .mark_line(strokeWidth=0.8, opacity=0.35, clip=True)
        .encode(
            y=y("mean:Q"),
            color=colour,
            x=x_encoding,
            detail=["arm:N", "seed:N"],
        )
    )


def _draw_runs(
    runs: Sequence[RunCurve], x: XAxis, x_encoding: Any, y: Callable[[str], alt.Y]
) -> list[alt.Chart]:
    """Draw the curves of single runs as dashed lines, and at its end a mark of each one's state."""
    lines = alt.Chart(table_data(_run_rows(runs)))
    ends = alt.Chart(table_data(_run_rows([replace(run, points=run.points[-1:]) for run in runs])))
    encoding: dict[str, Any] = {
        "x": x_encoding,
        "y": y("value:Q"),
        "color": alt.Color("colour:N", scale=None, legend=None),
        "detail": "run:N",
        "tooltip": [
            *(alt.Tooltip(f"{name}:N") for name in ("run", "state", "of")),
            alt.Tooltip("x:Q", title=x.title),
            alt.Tooltip("value:Q", format=".4f"),
        ],
    }
    marks = alt.Scale(domain=list(RUN_MARKS), range=list(RUN_MARKS.values()))
    return [
        lines.mark_line(strokeWidth=1.4, strokeDash=[4, 3], clip=True).encode(**encoding),
        ends.mark_point(size=70, strokeWidth=1.6, clip=True).encode(
            **encoding, shape=alt.Shape("state:N", scale=marks, legend=None)
        ),
    ]


def _run_rows(runs: Sequence[RunCurve]) -> list[dict[str, Any]]:
    return [
        {
            "run": run.run,
            "state": run.state,
            "of": run.arm or "an arm without a finished run",
            "colour": run.colour or REST,
            "x": _six_digits(x),
            "value": _six_digits(value),
        }
        for run in runs
        for x, value in run.points
    ]


RUN_MARKS = {
    "running": "circle",
    "failed": "cross",
    "interrupted": "square",
    "killed": "diamond",
}
"""The mark at the end of a dashed curve, by the state of its run."""


def _draw_bands(
    x_encoding: Any,
    y: Callable[[str], alt.Y],
    colour: Any,
    opacity: float | int,
    *,
    log_y: bool,
) -> alt.Chart:
    """Draw the interval around each mean as a band; a band that a reader chose is darker."""
    # An end that is not above 0 lies below the frame of a logarithmic axis, where it has no place.
    low = "low_above_0" if log_y else "low"
    bands = alt.Chart().transform_filter("datum.coloured == 1 && isValid(datum.low)")
    if log_y:
        bands = bands.transform_calculate(**{low: "max(datum.low, datum.mean / 1e6)"})
    return bands.mark_area(clip=True).encode(
        y=y(f"{low}:Q"),
        y2="high:Q",
        color=colour,
        opacity=alt.condition(IS_CHOSEN, alt.value(0.25), alt.value(opacity)),
        x=x_encoding,
        detail="arm:N",
    )


def _draw_means(
    x: XAxis,
    x_encoding: Any,
    y: Callable[[str], alt.Y],
    colour: Any,
    dashes: Any,
    *,
    has_dots: bool,
) -> list[alt.Chart]:
    """Draw the mean of each arm as a line, and its points, which have the tooltips."""
    y_mean = y("mean:Q")
    lines = (
        alt.Chart()
        .transform_filter("datum.coloured == 1")
        .mark_line(clip=True)
        .encode(
            y=y_mean,
            color=colour,
            strokeDash=dashes,
            strokeWidth=alt.condition(IS_CHOSEN, alt.value(4), alt.value(2)),
            x=x_encoding,
            detail="arm:N",
        )
    )
    # Few points make no curve: a reader must see where a value was measured.
    points = (
        alt.Chart()
        .transform_filter("datum.coloured == 1")
        .mark_point(size=50, filled=True, opacity=float(has_dots))
        .encode(y=y_mean, color=colour, tooltip=_tooltip(x), x=x_encoding, detail="arm:N")
    )
    return [lines, points]


def _point_rows(arms: Sequence[ArmCurve]) -> list[dict[str, Any]]:
    """Return a row of data for each point of each arm."""
    return [
        {
            "arm": arm.title,
            "coloured": int(arm.colour is not None),
            "x": _six_digits(point.x),
            "n": point.n,
            **{
                key: None if value is None else _six_digits(value)
                for key, value in zip(("mean", "low", "high"), point[2:], strict=True)
            },
        }
        for arm in arms
        for point in arm.points
    ]


def _six_digits(value: float | int) -> float:
    return float(f"{value:.6g}")


def _colour_encoding(arms: Sequence[ArmCurve], legend: bool) -> Any:
    scale = alt.Scale(
        domain=[arm.title for arm in arms], range=[arm.colour or REST for arm in arms]
    )
    return alt.Color("arm:N", scale=scale, legend=_legend(arms) if legend else None)


def _dash_encoding(arms: Sequence[ArmCurve], legend: bool) -> Any:
    scale = alt.Scale(
        domain=[arm.title for arm in arms], range=[DASHES[arm.dash % len(DASHES)] for arm in arms]
    )
    return alt.StrokeDash("arm:N", scale=scale, legend=_legend(arms) if legend else None)


def _legend(arms: Sequence[ArmCurve]) -> Any:
    """Return a legend below the figure, in as many columns as the longest title leaves room for."""
    longest = max((len(arm.title) for arm in arms), default=0)
    return alt.Legend(
        title=None,
        orient="bottom",
        direction="vertical",
        columns=2 if longest <= 28 else 1,
        labelLimit=0,
        symbolType="stroke",
        symbolSize=320,
        symbolOpacity=1,
    )


def _tooltip(x: XAxis) -> list[Any]:
    """Return the fields that a tooltip of a point has."""
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("x:Q", title=x.title),
        alt.Tooltip("mean:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
        alt.Tooltip("n:Q", title="seeds"),
    ]


def _encode_x(x: XAxis, x_values: Sequence[float | int]) -> Any:
    """Return the encoding of the x axis; few values, and lengths that double, are its ticks."""
    if x.doubling:
        axis = alt.Axis(grid=False, values=list(x_values), format="d")
        return alt.X(
            "x:Q", title=x.title, axis=axis, scale=alt.Scale(type="log", base=2, padding=8)
        )
    ticks: dict[str, Any] = (
        {"values": list(x_values)} if len(x_values) <= MOST_DOTS else {"tickCount": 6}
    )
    # With `format` all labels would share a prefix: 0.2k before 1k.
    labels = "format(datum.value, '~s')"
    axis = alt.Axis(grid=False, labelExpr=labels, labelOverlap=True, **ticks)
    # The dot of the first and of the last point has room, and no value is drawn at the frame.
    scale = (
        alt.Scale(type="log", nice=False, padding=8)
        if x.log
        else alt.Scale(zero=False, nice=False, padding=8)
    )
    return alt.X("x:Q", title=x.title, axis=axis, scale=scale)
