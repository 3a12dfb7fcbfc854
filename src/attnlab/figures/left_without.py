"""What is left of a metric where parts of the model are taken away, beside the whole model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import INK, VARIANTS, frame_chart

ROW_HEIGHT = 26


class LeftRow(NamedTuple):
    """The mean over n seeds of what is left, with its interval."""

    title: str
    n: int
    mean: float
    low: float | None
    high: float | None
    is_whole: bool = False
    """Whether nothing was taken away."""


def draw_left_without(
    rows: Sequence[LeftRow],
    title: str,
    caption: Sequence[str],
    x_title: str,
    width: int | str = "container",
) -> Any:
    """Draw each mean as a point and its interval as a line; the whole model is in the text colour.

    The axis is from 0 to 1, or further where an interval reaches further.
    """
    values = [row._asdict() for row in rows]
    ends = [end for row in rows for end in (row.mean, row.low, row.high) if end is not None]
    scale = alt.Scale(domain=[min(0.0, *ends), max(1.0, *ends)], nice=False)

    def at(name: str) -> Any:
        return alt.X(f"{name}:Q", title=x_title, axis=alt.Axis(tickCount=5), scale=scale)

    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y(
            "title:N",
            title=None,
            sort=None,
            axis=alt.Axis(grid=False, labelLimit=230, labelPadding=10),
        ),
        color=alt.condition("datum.is_whole", alt.value(INK), alt.value(VARIANTS[0])),
    )
    intervals = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(x=at("low"), x2="high:Q")
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=at("mean"),
        tooltip=[
            alt.Tooltip("title:N", title="without"),
            *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("mean", "low", "high")),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    return frame_chart(
        alt.layer(intervals, points),
        title,
        caption,
        f"{title}: {', '.join(row.title for row in rows)}",
        width=width,
        height=ROW_HEIGHT * len(rows),
    )
