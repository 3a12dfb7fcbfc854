"""The curves of one run, to which a page adds rows while the run trains."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from attnlab.figures.base import VARIANTS, describe_log_axes, frame_chart

ROWS = "rows"
"""The name of the data to which a page adds rows."""
SPLITS = ("train", "validation", "test")


def draw_run_curve(
    column: str,
    points_by_split: Mapping[str, Sequence[tuple[int, float]]],
    caption: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> Any:
    """Draw (step, value) of one quantity, a line for each split, as they were recorded.

    On a logarithmic axis, what is not above 0 has no place, and the caption says how many are not
    drawn; an axis on which nothing is left is linear.
    """
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
    log_x = log_x and any(row["step"] > 0 for row in rows)
    log_y = log_y and any(row["value"] > 0 for row in rows)
    num_off = sum((log_x and row["step"] <= 0) or (log_y and row["value"] <= 0) for row in rows)
    lines = [caption, *describe_log_axes(log_x, log_y)]
    if num_off:
        lines.append(f"not drawn, as not above 0: {num_off:,} of {len(rows):,} points")
    log = alt.Scale(type="log", nice=False)
    x = alt.X(
        "step:Q",
        title="step",
        axis=alt.Axis(grid=False, format="~s", tickCount=6),
        scale=log if log_x else alt.Undefined,
    )
    y = alt.Y("value:Q", title=column, scale=log if log_y else alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("split:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", format=".6g"),
    ]
    data = alt.InlineData(values=rows, name=ROWS)
    base = alt.Chart(data).encode(x=x, y=y, color=colour)
    # Rows that a page adds later pass through it too.
    if log_x:
        base = base.transform_filter("datum.step > 0")
    if log_y:
        base = base.transform_filter("datum.value > 0")
    chart = alt.layer(
        base.mark_line(strokeWidth=1.6),
        base.mark_point(size=40, filled=True, opacity=0).encode(tooltip=tooltip),
    ).properties(usermeta={"column": column})
    return frame_chart(
        chart,
        column,
        lines,
        f"{column} over steps: {', '.join(points_by_split)}",
        width="container",
        height=220,
    )
