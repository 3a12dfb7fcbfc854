"""A metric as heads are removed one by one (Michel et al. 2019, fig. 3)."""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from attnlab.figures.base import VARIANTS, apply_theme

COLOURS = (VARIANTS[0], VARIANTS[4])
"""The colours of the given order and of random orders."""
NAMED = 16
"""The most heads that have room for their names below the axis."""


def draw_pruning(
    values: Sequence[float],
    heads: Sequence[str],
    metric: str,
    order_name: str,
    caption: str | Sequence[str] = "",
    random_curves: Sequence[Sequence[float]] = (),
    width: int | str = 460,
) -> Any:
    """Draw a metric of the whole model and after the removal of each head in `heads`.

    `random_curves` are the same for random orders: they are drawn as a band from the lowest to the
    highest at each number of heads, and their mean. Raises ValueError for curves of unequal length.
    """
    for curve in (values, *random_curves):
        if len(curve) != len(heads) + 1:
            raise ValueError(
                f"a curve of {len(curve)} values does not fit {len(heads)} heads; give the whole "
                "model's, then one for each head"
            )
    random_label = f"random order, mean of {len(random_curves)}" if random_curves else ""
    head_names = ["", *heads]
    data = [
        {
            "order": order_name,
            "removed": num_removed,
            "value": value,
            "head": head_names[num_removed],
        }
        for num_removed, value in enumerate(values)
    ]
    data += _random_order_rows(random_curves, random_label)
    x = alt.X("removed:Q", title="heads removed", axis=_removal_axis(head_names))
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    legend = alt.Legend(
        title=None, orient="bottom", symbolType="stroke", symbolSize=320, symbolOpacity=1
    )
    colour = alt.Color(
        "order:N",
        scale=alt.Scale(
            domain=[order_name, *([random_label] if random_curves else [])], range=COLOURS
        ),
        legend=legend if random_curves else None,
    )
    base = alt.Chart(alt.InlineData(values=data, name="pruning")).encode(x=x, color=colour)
    order_chart = base.transform_filter(alt.datum.order == order_name)
    layers = [
        order_chart.mark_line(strokeWidth=2).encode(y=y),
        order_chart.mark_point(size=40, filled=True, opacity=1).encode(
            y=y,
            tooltip=[
                alt.Tooltip("removed:Q", title="heads removed"),
                alt.Tooltip("head:N", title="the last of them"),
                alt.Tooltip("value:Q", title=metric, format=".4f"),
            ],
        ),
    ]
    if random_curves:
        random_chart = base.transform_filter(alt.datum.order == random_label)
        band = random_chart.mark_area(opacity=0.2).encode(
            y=alt.Y("low:Q", title=metric), y2="high:Q"
        )
        layers = [
            band,
            random_chart.mark_line(strokeWidth=1.5, strokeDash=[5, 3]).encode(y=y),
            *layers,
        ]
    return apply_theme(
        alt.layer(*layers).properties(
            width=width,
            height=260,
            title=alt.TitleParams(
                f"{metric} as heads are removed", subtitle=caption, fontSize=13, offset=10
            ),
            description=f"{metric} of the whole model and after each of {len(heads)} heads that "
            f"are removed, {order_name}",
        )
    )


def _random_order_rows(
    random_curves: Sequence[Sequence[float]], label: str
) -> list[dict[str, Any]]:
    """Return the mean, lowest and highest value of random orders at each number of heads."""
    # All orders agree at both ends, so random orders have a spread only between.
    return [
        {
            "order": label,
            "removed": num_removed,
            "value": sum(values) / len(values),
            "low": min(values),
            "high": max(values),
        }
        for num_removed, values in enumerate(zip(*random_curves, strict=True))
    ]


def _removal_axis(head_names: Sequence[str]) -> Any:
    """Return an axis of the number of removed heads, with their names if there is room."""
    if len(head_names) - 1 > NAMED:
        return alt.Axis(grid=False, format="d", tickMinStep=1)
    # A name is on a second line below its number, since the labels are dense.
    labels = f"[datum.label, {json.dumps(list(head_names))}[datum.value]]"
    return alt.Axis(
        grid=False,
        format="d",
        values=list(range(len(head_names))),
        labelExpr=labels,
        labelFontSize=9,
    )
