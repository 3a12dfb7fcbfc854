"""What is left of a metric as heads are removed one by one (Michel et al. 2019, fig. 3)."""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from attnlab.figures.base import VARIANTS, themed

COLOURS = (VARIANTS[0], VARIANTS[4])
"""Of the order that is meant, and of chance."""
NAMED = 16
"""Heads that have room for their names below the axis."""


def pruning(
    values: Sequence[float],
    heads: Sequence[str],
    metric: str,
    order: str,
    caption: str | Sequence[str] = "",
    random: Sequence[Sequence[float]] = (),
    width: int | str = 460,
) -> Any:
    """Draw a metric of the whole model and after each head that is removed, named in `heads`.

    `random` has the same curve for orders by chance: a band from the lowest to the highest of them
    at each number of heads, and their mean. Raises ValueError for curves of unequal length.
    """
    for curve in (values, *random):
        if len(curve) != len(heads) + 1:
            raise ValueError(
                f"a curve of {len(curve)} values does not fit {len(heads)} heads; give the whole "
                "model's, then one for each head"
            )
    chance = f"random order, mean of {len(random)}" if random else ""
    named = ["", *heads]
    data: list[dict[str, Any]] = [
        {"order": order, "removed": removed, "value": value, "head": named[removed]}
        for removed, value in enumerate(values)
    ]
    # All curves begin and end alike, so chance has something to say only between.
    for removed, drawn in enumerate(zip(*random, strict=True)):
        found = {"value": sum(drawn) / len(drawn), "low": min(drawn), "high": max(drawn)}
        data.append({"order": chance, "removed": removed, **found})
    x = alt.X("removed:Q", title="heads removed", axis=_axis(named))
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    legend = alt.Legend(
        title=None, orient="bottom", symbolType="stroke", symbolSize=320, symbolOpacity=1
    )
    colour = alt.Color(
        "order:N",
        scale=alt.Scale(domain=[order, *([chance] if random else [])], range=COLOURS),
        legend=legend if random else None,
    )
    base = alt.Chart(alt.InlineData(values=data, name="pruning")).encode(x=x, color=colour)
    of_order = base.transform_filter(alt.datum.order == order)
    layers = [
        of_order.mark_line(strokeWidth=2).encode(y=y),
        of_order.mark_point(size=40, filled=True, opacity=1).encode(
            y=y,
            tooltip=[
                alt.Tooltip("removed:Q", title="heads removed"),
                alt.Tooltip("head:N", title="the last of them"),
                alt.Tooltip("value:Q", title=metric, format=".4f"),
            ],
        ),
    ]
    if random:
        drawn = base.transform_filter(alt.datum.order == chance)
        band = drawn.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=metric), y2="high:Q")
        layers = [band, drawn.mark_line(strokeWidth=1.5, strokeDash=[5, 3]).encode(y=y), *layers]
    return themed(
        alt.layer(*layers).properties(
            width=width,
            height=260,
            title=alt.TitleParams(
                f"{metric} as heads are removed", subtitle=caption, fontSize=13, offset=10
            ),
            description=f"{metric} of the whole model and after each of {len(heads)} heads that "
            f"are removed, {order}",
        )
    )


def _axis(named: Sequence[str]) -> Any:
    """Count the heads, and name each where there is room."""
    if len(named) - 1 > NAMED:
        return alt.Axis(grid=False, format="d", tickMinStep=1)
    # Where labels are tight, a name stands below its number.
    labels = f"[datum.label, {json.dumps(list(named))}[datum.value]]"
    return alt.Axis(
        grid=False, format="d", values=list(range(len(named))), labelExpr=labels, labelFontSize=9
    )
