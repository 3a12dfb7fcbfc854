"""Curves of many arms over steps or over a length: means, intervals and single seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import INK, apply_theme

DASHES = ([1, 0], [5, 3], [1, 2.5], [7, 2, 1, 2])
REST = "#8a929a"
"""The colour of arms that are not highlighted."""
MOST_BANDS = 6
"""The number of coloured arms up to which all bands are drawn; more of them cover each other."""


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


class XAxis(NamedTuple):
    """The x axis: its title and its scale."""

    title: str = "step"
    log: bool = False
    doubling: bool = False
    """Whether x are a few lengths, each twice the one before it."""


def draw_curves(
    arms: Sequence[ArmCurve],
    title: str,
    caption: Sequence[str] = (),
    *,
    x: XAxis | None = None,
    width: int | str = 420,
    legend: bool = True,
) -> Any:
    """Draw the mean of each arm, unsmoothed, with the interval as a band and seeds as faint lines.

    Arms without a colour are thin and grey, behind the others. Bands are drawn for up to
    `MOST_BANDS` coloured arms, and clipped at the frame, which fits the means. Without a `legend`,
    the figure stands on a page, whose script sets the parameter `chosen`: the arms with these
    titles come forward, each with its band.
    """
    x = x or XAxis()
    y_scale = _mean_scale(arms)
    if x.log:
        arms = [_without_nonpositive_x(arm) for arm in arms]
    x_encoding = _encode_x(x, sorted({point.x for arm in arms for point in arm.points}))
    grey_arms = [arm for arm in arms if arm.colour is None]
    coloured_arms = [arm for arm in arms if arm.colour is not None]
    colour = _colour_encoding(coloured_arms, legend)
    layers = []
    if grey_arms:
        layers.append(_draw_grey_arms(grey_arms, x, x_encoding, y_scale))
    if any(arm.seed_curves for arm in coloured_arms):
        layers.append(_draw_seed_curves(coloured_arms, x_encoding, y_scale, colour))
    rows = _point_rows(coloured_arms)
    rows_with_interval = [row for row in rows if row["low"] is not None]
    shows_all_bands = len(coloured_arms) <= MOST_BANDS
    if rows_with_interval and (shows_all_bands or not legend):
        opacity = 0.16 if shows_all_bands else 0
        layers.append(_draw_bands(rows_with_interval, x_encoding, y_scale, colour, opacity))
    dashes = _dash_encoding(coloured_arms, legend)
    layers += _draw_means(rows, x, x_encoding, y_scale, colour, dashes)
    return apply_theme(
        alt.layer(*layers)
        .add_params(alt.param(name="chosen", value=[]))
        .properties(
            width=width,
            height=240,
            title=alt.TitleParams(title, subtitle=list(caption), fontSize=13, offset=10),
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            description=f"{title}, {' '.join(caption)}: {'; '.join(arm.title for arm in arms)}",
        )
    )


IS_CHOSEN = "indexof(chosen, datum.arm) >= 0"


def _mean_scale(arms: Sequence[ArmCurve]) -> alt.Scale:
    """Return a y scale that fits the means of all arms, with a margin."""
    means = [point.mean for arm in arms for point in arm.points]
    margin = 0.04 * (max(means) - min(means)) or 0.04
    return alt.Scale(
        domain=[float(f"{min(means) - margin:.6g}"), float(f"{max(means) + margin:.6g}")],
        nice=False,
        zero=False,
    )


def _draw_grey_arms(
    arms: Sequence[ArmCurve], x: XAxis, x_encoding: Any, y_scale: alt.Scale
) -> alt.Chart:
    """Draw the means of arms as thin grey lines; a line that a reader chose is dark."""
    return (
        _inline_chart(_point_rows(arms))
        .mark_line(clip=True)
        .encode(
            y=alt.Y("mean:Q", title=None, scale=y_scale),
            color=alt.condition(IS_CHOSEN, alt.value(INK), alt.value(REST)),
            strokeWidth=alt.condition(IS_CHOSEN, alt.value(2.5), alt.value(1)),
            opacity=alt.condition(IS_CHOSEN, alt.value(1), alt.value(0.45)),
            tooltip=_tooltip(x),
            x=x_encoding,
            detail="arm:N",
        )
    )


def _draw_seed_curves(
    arms: Sequence[ArmCurve], x_encoding: Any, y_scale: alt.Scale, colour: Any
) -> alt.Chart:
    """Draw the curve of each seed as a faint line."""
    rows = [
        {
            "arm": arm.title,
            "seed": f"{arm.title} {number}",
            "x": _six_digits(x),
            "mean": _six_digits(value),
        }
        for arm in arms
        for number, seed_curve in enumerate(arm.seed_curves)
        for x, value in seed_curve
    ]
    return (
        _inline_chart(rows)
        .mark_line(strokeWidth=0.8, opacity=0.35, clip=True)
        .encode(
            y=alt.Y("mean:Q", title=None, scale=y_scale),
            color=colour,
            x=x_encoding,
            detail="seed:N",
        )
    )


def _draw_bands(
    rows: Sequence[dict[str, Any]],
    x_encoding: Any,
    y_scale: alt.Scale,
    colour: Any,
    opacity: float | int,
) -> alt.Chart:
    """Draw the interval around each mean as a band; a band that a reader chose is darker."""
    return (
        _inline_chart(rows)
        .mark_area(clip=True)
        .encode(
            y=alt.Y("low:Q", title=None, scale=y_scale),
            y2="high:Q",
            color=colour,
            opacity=alt.condition(IS_CHOSEN, alt.value(0.25), alt.value(opacity)),
            x=x_encoding,
            detail="arm:N",
        )
    )


def _draw_means(
    rows: Sequence[dict[str, Any]],
    x: XAxis,
    x_encoding: Any,
    y_scale: alt.Scale,
    colour: Any,
    dashes: Any,
) -> list[alt.Chart]:
    """Draw the mean of each arm as a line, and its points, which have the tooltips."""
    y = alt.Y("mean:Q", title=None, scale=y_scale)
    lines = (
        _inline_chart(rows)
        .mark_line(clip=True)
        .encode(
            y=y,
            color=colour,
            strokeDash=dashes,
            strokeWidth=alt.condition(IS_CHOSEN, alt.value(4), alt.value(2)),
            x=x_encoding,
            detail="arm:N",
        )
    )
    # Few points make no curve: a reader must see where a value was measured.
    has_dots = x.doubling or len({row["x"] for row in rows}) <= MOST_DOTS
    points = (
        _inline_chart(rows)
        .mark_point(size=50, filled=True, opacity=float(has_dots), clip=True)
        .encode(y=y, color=colour, tooltip=_tooltip(x), x=x_encoding, detail="arm:N")
    )
    return [lines, points]


def _inline_chart(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows)))


def _point_rows(arms: Sequence[ArmCurve]) -> list[dict[str, Any]]:
    """Return a row of data for each point of each arm."""
    return [
        {
            "arm": arm.title,
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


def _without_nonpositive_x(arm: ArmCurve) -> ArmCurve:
    """Return an arm without what lies at 0, which has no place on a logarithmic axis."""
    return ArmCurve(
        arm.title,
        arm.colour,
        [point for point in arm.points if point.x > 0],
        arm.dash,
        [[(x, value) for x, value in curve if x > 0] for curve in arm.seed_curves],
    )


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
    """Return the encoding of the x axis; lengths that double are ticks of their own."""
    if x.doubling:
        axis = alt.Axis(grid=False, values=list(x_values), format="d")
        return alt.X(
            "x:Q", title=x.title, axis=axis, scale=alt.Scale(type="log", base=2, padding=8)
        )
    axis = alt.Axis(grid=False, format="~s", tickCount=6, labelOverlap=True)
    scale = alt.Scale(type="log", nice=False) if x.log else alt.Scale(zero=False)
    return alt.X("x:Q", title=x.title, axis=axis, scale=scale)
