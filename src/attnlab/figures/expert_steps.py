"""The load of each expert of a layer over training, and at its end."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import altair as alt

from attnlab.figures.base import HIGHLIGHTS, INK, VARIANTS, frame_chart

HEIGHT, ROW = 200, 20
"""Pixels of the curves, and of a row of bars."""
MOST_COLOURS = len(HIGHLIGHTS)
"""The number of experts up to which each has a colour; of more, all have one."""


def draw_load_steps(
    load_by_step: Mapping[int, Sequence[float]],
    title: str,
    caption: Sequence[str],
    width: int | str = "container",
) -> Any:
    """Draw the load of each expert at each step, unsmoothed; a dashed line marks an equal one."""
    num_experts = max(map(len, load_by_step.values()), default=0)
    names = [str(expert) for expert in range(num_experts)]
    data = [
        {"step": step, "expert": str(expert), "load": float(f"{share:.6g}")}
        for step, load in load_by_step.items()
        for expert, share in enumerate(load)
        if isfinite(share)
    ]
    colour = alt.value(VARIANTS[0])
    if num_experts <= MOST_COLOURS:
        colour = alt.Color(
            "expert:N",
            scale=alt.Scale(domain=names, range=list(HIGHLIGHTS[:num_experts])),
            legend=alt.Legend(
                title="expert", orient="bottom", symbolType="stroke", direction="horizontal"
            ),
        )
    largest = max((row["load"] for row in data), default=1.0)
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s", tickCount=6)),
        y=alt.Y(
            "load:Q",
            title="share of assignments",
            scale=alt.Scale(domain=[0, largest * 1.05], nice=False),
            axis=alt.Axis(format="%", tickCount=4),
        ),
        detail="expert:N",
        color=colour,
    )
    tooltip = [
        "expert:N",
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("load:Q", format=".2%"),
    ]
    lines = base.mark_line(strokeWidth=1.8)
    dots = base.mark_point(size=26, filled=True, opacity=1).encode(tooltip=tooltip)
    return _finish(
        alt.layer(_equal_share(num_experts, alt.Y), lines, dots), title, caption, HEIGHT, width
    )


def draw_final_load(
    load: Sequence[float], title: str, caption: Sequence[str], width: int | str = "container"
) -> Any:
    """Draw the load of each expert as a bar from 0; a dashed line marks an equal one."""
    data = [
        {"expert": expert, "load": float(f"{share:.6g}")}
        for expert, share in enumerate(load)
        if isfinite(share)
    ]
    base = alt.Chart(alt.InlineData(values=data)).encode(
        y=alt.Y("expert:O", title="expert", axis=alt.Axis(grid=False)),
        x=alt.X("load:Q", title="share of assignments", axis=alt.Axis(format="%", tickCount=5)),
    )
    bars = base.mark_bar(color=VARIANTS[0], height=alt.RelativeBandSize(0.7)).encode(
        tooltip=["expert:O", alt.Tooltip("load:Q", format=".2%")]
    )
    layers = [bars, _equal_share(len(load), alt.X)]
    if any(row["load"] == 0 for row in data):
        unused = base.transform_filter("datum.load === 0")
        layers.append(
            unused.mark_text(align="left", text="none", fontSize=10, dx=4, baseline="middle")
        )
    return _finish(alt.layer(*layers), title, caption, ROW * max(1, len(load)), width)


def _equal_share(num_experts: int, channel: type) -> Any:
    """Draw a line at the load that each expert has where all have the same."""
    values = [{"load": 1 / num_experts}] if num_experts else []
    rule = alt.Chart(alt.InlineData(values=values)).mark_rule(
        strokeDash=[3, 3], strokeWidth=1.2, opacity=0.6, color=INK
    )
    return rule.encode(channel("load:Q"))


def _finish(layers: Any, title: str, caption: Sequence[str], height: int, width: int | str) -> Any:
    return frame_chart(
        layers,
        title,
        caption,
        f"{title}, {' '.join(caption)}",
        width=width,
        height=height,
    )
