"""Which expert works on what: shares of each token's assignments, and what each expert has to do.

A cell's darkness is a share, from 0 to 1 and without any other scale, so layers and models can be
compared by eye.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float, Int

from attnlab.figures.base import INK, VARIANTS, themed, visible

CELL, ROW = 30, 17
"""Pixels of a cell to the right, and from a token to the next."""
DIGITS = 0.1
"""Shares from here on are written in their cells."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What the experts of a layer have to do."""

    title: str
    load: Float[np.ndarray, " expert"]
    """Share of assignments."""
    together: Float[np.ndarray, "expert other"]
    """Share of tokens sent to both."""


def table(
    tokens: Sequence[str],
    counts: Int[np.ndarray, "token expert"],
    title: str,
    count: int = 24,
) -> Any:
    """Draw P(expert | token) of the tokens with most assignments, the most frequent first.

    The number of assignments stands at the right. Raises ValueError where there are none.
    """
    totals = counts.sum(axis=1)
    order = [int(at) for at in np.argsort(-totals, kind="stable")[:count] if totals[at]]
    if not order:
        raise ValueError("no token went to an expert, so there is nothing to draw")
    width = counts.shape[1]
    data = [
        {
            "row": row,
            "token": visible(tokens[at]),
            "expert": expert,
            "share": round(float(counts[at, expert] / totals[at]), 6),
            "count": int(totals[at]),
        }
        for row, at in enumerate(order)
        for expert in range(width)
    ]
    base = alt.Chart(alt.InlineData(values=data, name="shares"))
    labels = base.transform_filter("datum.expert === 0")
    y = _band("row:O", alt.Y, axis=None)
    named = labels.mark_text(align="right", baseline="middle", fontSize=12, opacity=0.85).encode(
        y=y, x=alt.value(-6), text="token:N"
    )
    often = labels.mark_text(align="left", baseline="middle", fontSize=10, opacity=0.6).encode(
        y=y, x=alt.value(CELL * width + 6), text=alt.Text("count:Q", format=",")
    )
    heading = alt.TitleParams(
        title,
        subtitle="share of a token's assignments that each expert has; at the right, how many",
        fontSize=13,
        offset=10,
    )
    cells = _cells(base, _band("expert:O", alt.X, axis=_top("expert")), y)
    return themed(
        alt.layer(*cells, named, often).properties(
            width=CELL * width,
            height=ROW * len(order),
            title=heading,
            description=f"Share of each expert in {len(order)} tokens: {title}",
        )
    )


def loads(layers: Sequence[Layer]) -> Any:
    """Draw for each layer the load of its experts, and beside it which share tokens.

    A line marks an equal share. All bars have one scale. Raises ValueError for no layers.
    """
    if not layers:
        raise ValueError("no layers were given, so there is no load to draw")
    most = max(float(layer.load.max()) for layer in layers)
    rows = [
        alt.hconcat(_bars(layer, most), _together(layer), spacing=36).properties(
            title=alt.TitleParams(layer.title, fontSize=13, offset=8)
        )
        for layer in layers
    ]
    return themed(
        alt.vconcat(*rows, spacing=28).properties(
            description=f"Load and shared tokens of the experts of {len(layers)} layers"
        )
    )


def _bars(layer: Layer, most: float) -> Any:
    size = len(layer.load)
    data = [{"expert": n, "load": round(float(share), 6)} for n, share in enumerate(layer.load)]
    axis = alt.Axis(format="%", tickCount=4, orient="top")
    x = alt.X("load:Q", title=None, scale=alt.Scale(domain=[0, most]), axis=axis)
    base = alt.Chart(alt.InlineData(values=data))
    y = _band("expert:O", alt.Y, axis=_side("expert"))
    bars = base.mark_bar(color=VARIANTS[0], height=alt.RelativeBandSize(0.7)).encode(
        x=x, y=y, tooltip=["expert:O", alt.Tooltip("load:Q", format=".1%")]
    )
    none = base.transform_filter("datum.load === 0").mark_text(
        align="left", text="none", fontSize=10, opacity=0.6, baseline="middle"
    )
    equal = (
        alt.Chart(alt.InlineData(values=[{"load": 1 / size}]))
        .mark_rule(strokeDash=[3, 3], strokeWidth=1.2, opacity=0.6)
        .encode(x=x)
    )
    drawn = alt.layer(bars, none.encode(x=alt.value(4), y=y), equal)
    heading = _small("share of all assignments; the line is an equal one")
    return drawn.properties(width=240, height=ROW * size, title=heading)


def _together(layer: Layer) -> Any:
    data = [
        {"row": one, "expert": other, "share": round(float(share), 6)}
        for one, shares in enumerate(layer.together)
        for other, share in enumerate(shares)
    ]
    base = alt.Chart(alt.InlineData(values=data))
    size = len(layer.together)
    x = _band("expert:O", alt.X, axis=_top(None))
    cells = _cells(base, x, _band("row:O", alt.Y, axis=_side(None)))
    heading = _small("share of tokens sent to both; on the diagonal, to one")
    return alt.layer(*cells).properties(width=CELL * size, height=ROW * size, title=heading)


def _cells(base: Any, x: Any, y: Any) -> list[Any]:
    """Draw shares as cells, with digits in those that are not small."""
    digits = base.transform_calculate(said="replace(format(datum.share, '.2f'), '0.', '.')")
    opacity = alt.FillOpacity(
        "share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.6]), legend=None
    )
    return [
        base.mark_rect(fill=VARIANTS[0], stroke=INK, strokeOpacity=0.08).encode(
            x=x, y=y, fillOpacity=opacity, tooltip=[alt.Tooltip("share:Q", format=".3f")]
        ),
        digits.transform_filter(f"datum.share >= {DIGITS}")
        .mark_text(fontSize=10, baseline="middle", opacity=0.9)
        .encode(x=x, y=y, text="said:N"),
    ]


def _band(field: str, channel: type, axis: Any) -> Any:
    return channel(field, axis=axis, scale=alt.Scale(paddingInner=0, paddingOuter=0))


def _small(text: str) -> Any:
    return alt.TitleParams(text, fontSize=11, fontWeight="normal", offset=6)


def _top(title: str | None) -> Any:
    return alt.Axis(orient="top", title=title, grid=False, labelAngle=0)


def _side(title: str | None) -> Any:
    return alt.Axis(title=title, grid=False)
