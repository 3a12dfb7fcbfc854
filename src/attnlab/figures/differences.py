"""Differences to a baseline with their intervals, one below the other (a forest plot)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import INK, frame_chart

ROW_HEIGHT = 24


class DifferenceRow(NamedTuple):
    """An arm's difference to the baseline."""

    title: str
    colour: str
    n: int
    mean: float
    low: float | None
    high: float | None
    p: float | None


def draw_differences(
    rows: Sequence[DifferenceRow], title: str, caption: Sequence[str], width: int | str = 420
) -> Any:
    """Draw each difference as a point and its interval as a line, beside the line at 0."""
    values = [
        {
            "arm": row.title,
            "n": row.n,
            "mean": row.mean,
            "low": row.low,
            "high": row.high,
            "p": row.p,
        }
        for row in rows
    ]
    data = alt.InlineData(values=values)
    colour = alt.Color(
        "arm:N",
        legend=None,
        scale=alt.Scale(domain=[row.title for row in rows], range=[row.colour for row in rows]),
    )
    y = alt.Y(
        "arm:N",
        sort=None,
        title=None,
        axis=alt.Axis(grid=False, labelLimit=220, domain=False),
    )
    x_axis = alt.Axis(tickCount=5)
    tooltip = [
        alt.Tooltip("arm:N"),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("mean", "low", "high")),
        alt.Tooltip("p:Q", format=".3g"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    zero = (
        alt.Chart(alt.InlineData(values=[{"zero": 0}]))
        .mark_rule(strokeDash=[3, 3], opacity=0.6, color=INK)
        .encode(x=alt.X("zero:Q"))
    )
    base = alt.Chart(data).encode(y=y, color=colour)
    intervals = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="difference", axis=x_axis), x2="high:Q"
    )
    means = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("mean:Q", title="difference", axis=x_axis), tooltip=tooltip
    )
    chart = alt.layer(zero, intervals, means)
    return frame_chart(
        chart,
        title,
        caption,
        f"{title}, {' '.join(caption)}",
        width=width,
        height=ROW_HEIGHT * len(rows),
    )
