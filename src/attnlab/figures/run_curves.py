"""The curves of one run, to which a page adds rows while the run trains."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from attnlab.figures.base import VARIANTS, frame_chart

ROWS = "rows"
"""The name of the data to which a page adds rows."""
SPLITS = ("train", "validation", "test")


def draw_run_curve(
    column: str, points_by_split: Mapping[str, Sequence[tuple[int, float]]], caption: str
) -> Any:
    """Draw (step, value) of one quantity, a line for each split, as they were recorded."""
    rows = [
        {"split": split, "step": step, "value": value}
        for split, points in points_by_split.items()
        for step, value in points
    ]
    colour = alt.Color(
        "split:N",
        scale=alt.Scale(domain=list(SPLITS), range=list(VARIANTS[: len(SPLITS)])),
        legend=alt.Legend(title=None, orient="bottom", values=list(points_by_split)),
    )
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s", tickCount=6))
    y = alt.Y("value:Q", title=column, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("split:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", format=".6g"),
    ]
    data = alt.InlineData(values=rows, name=ROWS)
    base = alt.Chart(data).encode(x=x, y=y, color=colour)
    chart = alt.layer(
        base.mark_line(strokeWidth=1.6),
        base.mark_point(size=40, filled=True, opacity=0).encode(tooltip=tooltip),
    ).properties(usermeta={"column": column})
    return frame_chart(
        chart,
        column,
        [caption],
        f"{column} over steps: {', '.join(points_by_split)}",
        width="container",
        height=220,
    )
