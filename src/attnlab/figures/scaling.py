"""The cost of models by length, on logarithmic axes, where a power of the length is a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from attnlab.figures.base import VARIANTS, apply_theme, colour_by_variant

DASHES = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3])
"""The dashes of the first lines, and after each time the colours are used up."""
MOST_TICKS = 8
LEAST_RANGE = 4
"""The least ratio of highest to lowest value of an axis, so that noise on a flat line is small."""
LADDERS = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Ticks within a power of ten, from dense to sparse."""


@dataclass(frozen=True)
class ScalingPoint:
    """A quantity at one length, and the interquartile range of its measurements."""

    length: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScalingLine:
    """An arm; `power` is the exponent of the length, which the legend has before the name."""

    arm: str
    power: str
    points: Sequence[ScalingPoint]


@dataclass(frozen=True)
class ScalingPanel:
    """A quantity of all arms; each arm has a line, which may have no points."""

    title: str
    subtitle: str
    lines: Sequence[ScalingLine]


def draw_scaling(panels: Sequence[ScalingPanel], num_columns: int = 2) -> Any:
    """Draw a panel for each quantity; its legend has the arms by the value at their last points.

    An arm has one colour in all panels, and dashes once the colours are used up.
    """
    arms = list(dict.fromkeys(line.arm for panel in panels for line in panel.lines))
    palette = colour_by_variant(arms)
    dashes = {arm: DASHES[index // len(VARIANTS) % len(DASHES)] for index, arm in enumerate(arms)}
    panel_charts = [_draw_panel(panel, palette, dashes) for panel in panels]
    return apply_theme(
        alt.concat(*panel_charts, columns=num_columns, spacing=40)
        .resolve_scale(color="independent", strokeDash="independent")
        .properties(description=f"Cost by length of {', '.join(arms)}")
    )


def _draw_panel(
    panel: ScalingPanel, palette: Mapping[str, str], dashes: Mapping[str, Sequence[int]]
) -> Any:
    """Draw a quantity by length: a line and ranges for each arm, and a legend in order of cost."""
    lines = sorted(
        (line for line in panel.lines if line.points),
        key=lambda line: -max(line.points, key=lambda point: point.length).value,
    )
    legend_labels = {line.arm: f"{line.power}\N{EN SPACE}{line.arm}".strip() for line in lines}
    data = [
        {
            "arm": legend_labels[line.arm],
            "length": point.length,
            **{name: float(f"{getattr(point, name):.6g}") for name in ("value", "low", "high")},
        }
        for line in lines
        for point in line.points
    ]
    lengths = sorted({row["length"] for row in data})
    lowest, highest = _axis_ends([row[name] for row in data for name in ("low", "high")])
    legend = alt.Legend(
        title="length to the power" if any(line.power for line in lines) else None,
        symbolType="stroke",
        symbolSize=320,
        symbolOpacity=1,
        labelLimit=260,
        rowPadding=3,
    )
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=alt.X(
            "length:Q",
            title="tokens in the sequence",
            scale=alt.Scale(type="log", base=2, padding=10, nice=False),
            axis=alt.Axis(grid=False, values=_thin_out(lengths), format="d"),
        ),
        color=alt.Color(
            "arm:N",
            scale=alt.Scale(
                domain=list(legend_labels.values()), range=[palette[arm] for arm in legend_labels]
            ),
            legend=legend,
        ),
        strokeDash=alt.StrokeDash(
            "arm:N",
            scale=alt.Scale(
                domain=list(legend_labels.values()), range=[dashes[arm] for arm in legend_labels]
            ),
            legend=legend,
        ),
    )
    scale = alt.Scale(type="log", domain=[lowest, highest], nice=False)
    # Labels of one width, so that the panels are aligned.
    axis = alt.Axis(format="~g", values=_ticks(lowest, highest), minExtent=36)
    y = alt.Y("value:Q", title=None, scale=scale, axis=axis)
    ranges = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q", strokeDash=alt.value([1, 0])
    )
    return alt.layer(
        ranges,
        base.mark_line(strokeWidth=2).encode(y=y),
        base.mark_point(size=44, filled=True, opacity=1).encode(
            y=y,
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("length:Q", title="tokens"),
                alt.Tooltip("value:Q", format=".3~g"),
            ],
        ),
    ).properties(
        width=300,
        height=max(230, 20 * len(lines)),
        title=alt.TitleParams(panel.title, subtitle=panel.subtitle, fontSize=13, offset=10),
    )


def _thin_out(lengths: Sequence[int]) -> Sequence[int]:
    """Return every n-th length from the longest down, at most MOST_TICKS of them."""
    stride = -(-len(lengths) // MOST_TICKS)
    return lengths[::-1][::stride]


def _axis_ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis: beyond the values, and with a ratio of at least LEAST_RANGE."""
    lowest, highest = min(values), max(values)
    padding = math.sqrt(max(1.0, LEAST_RANGE * lowest / highest)) * 1.2
    return lowest / padding, highest * padding


def _ticks(lowest: float, highest: float) -> Sequence[float]:
    """Return round numbers in a range, at most MOST_TICKS of them if a ladder has so few."""
    decades = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    ladders = [
        [
            tick
            for power in decades
            for step in ladder
            if lowest <= (tick := float(f"{step}e{power}")) <= highest
        ]
        for ladder in LADDERS
    ]
    return next((ticks for ticks in ladders if len(ticks) <= MOST_TICKS), ladders[-1])
