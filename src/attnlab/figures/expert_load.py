"""Expert routing: the shares of each token's assignments, and the load of each expert.

A cell's darkness is a share, from 0 to 1 without rescaling, so layers and models can be compared
by eye.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float, Int

from attnlab.figures.base import INK, VARIANTS, apply_theme, visible_text

CELL, ROW = 30, 17
"""Pixels of a cell: its width, and the height of a row."""
DIGITS = 0.1
"""The least share whose digits are written in its cell."""


@dataclass(frozen=True, eq=False)
class ExpertLoad:
    """The loads of the experts of a layer."""

    title: str
    load: Float[np.ndarray, " expert"]
    """Share of assignments."""
    co_assignment: Float[np.ndarray, "expert other"]
    """Share of tokens sent to both."""


def draw_token_table(
    tokens: Sequence[str],
    counts: Int[np.ndarray, "token expert"],
    title: str,
    count: int = 24,
) -> Any:
    """Draw P(expert | token) of the tokens with most assignments, the most frequent first.

    The number of assignments is at the right. Raises ValueError for no assignment.
    """
    totals = counts.sum(axis=1)
    most_frequent = [
        int(token_id) for token_id in np.argsort(-totals, kind="stable")[:count] if totals[token_id]
    ]
    if not most_frequent:
        raise ValueError("no token went to an expert, so there is nothing to draw")
    width = counts.shape[1]
    data = [
        {
            "row": row,
            "token": visible_text(tokens[token_id]),
            "expert": expert,
            "share": round(float(counts[token_id, expert] / totals[token_id]), 6),
            "count": int(totals[token_id]),
        }
        for row, token_id in enumerate(most_frequent)
        for expert in range(width)
    ]
    base = alt.Chart(alt.InlineData(values=data, name="shares"))
    labels = base.transform_filter("datum.expert === 0")
    y = _cell_position("row:O", alt.Y, axis=None)
    token_names = labels.mark_text(
        align="right", baseline="middle", fontSize=12, opacity=0.85
    ).encode(y=y, x=alt.value(-6), text="token:N")
    frequencies = labels.mark_text(
        align="left", baseline="middle", fontSize=10, opacity=0.6
    ).encode(y=y, x=alt.value(CELL * width + 6), text=alt.Text("count:Q", format=","))
    heading = alt.TitleParams(
        title,
        subtitle="share of a token's assignments that each expert has; at the right, how many",
        fontSize=13,
        offset=10,
    )
    cells = _draw_cells(base, _cell_position("expert:O", alt.X, axis=_top_axis("expert")), y)
    return apply_theme(
        alt.layer(*cells, token_names, frequencies).properties(
            width=CELL * width,
            height=ROW * len(most_frequent),
            title=heading,
            description=f"Share of each expert in {len(most_frequent)} tokens: {title}",
        )
    )


def draw_loads(layers: Sequence[ExpertLoad]) -> Any:
    """Draw for each layer the load of its experts, and the tokens shared by each two of them.

    A line marks an equal share. All bars have one scale. Raises ValueError for no layers.
    """
    if not layers:
        raise ValueError("no layers were given, so there is no load to draw")
    largest_load = max(float(layer.load.max()) for layer in layers)
    rows = [
        alt.hconcat(
            _draw_layer_loads(layer, largest_load), _draw_shared_tokens(layer), spacing=36
        ).properties(title=alt.TitleParams(layer.title, fontSize=13, offset=8))
        for layer in layers
    ]
    return apply_theme(
        alt.vconcat(*rows, spacing=28).properties(
            description=f"Load and shared tokens of the experts of {len(layers)} layers"
        )
    )


def _draw_layer_loads(layer: ExpertLoad, largest_load: float) -> Any:
    """Draw the load of each expert of a layer as a bar, and a line at an equal share."""
    num_experts = len(layer.load)
    data = [
        {"expert": expert, "load": round(float(share), 6)}
        for expert, share in enumerate(layer.load)
    ]
    axis = alt.Axis(format="%", tickCount=4, orient="top")
    x = alt.X("load:Q", title=None, scale=alt.Scale(domain=[0, largest_load]), axis=axis)
    base = alt.Chart(alt.InlineData(values=data))
    y = _cell_position("expert:O", alt.Y, axis=_left_axis("expert"))
    bars = base.mark_bar(color=VARIANTS[0], height=alt.RelativeBandSize(0.7)).encode(
        x=x, y=y, tooltip=["expert:O", alt.Tooltip("load:Q", format=".1%")]
    )
    unused_label = base.transform_filter("datum.load === 0").mark_text(
        align="left", text="none", fontSize=10, opacity=0.6, baseline="middle"
    )
    equal_share = (
        alt.Chart(alt.InlineData(values=[{"load": 1 / num_experts}]))
        .mark_rule(strokeDash=[3, 3], strokeWidth=1.2, opacity=0.6)
        .encode(x=x)
    )
    chart = alt.layer(bars, unused_label.encode(x=alt.value(4), y=y), equal_share)
    heading = _small_heading("share of all assignments; the line is an equal one")
    return chart.properties(width=240, height=ROW * num_experts, title=heading)


def _draw_shared_tokens(layer: ExpertLoad) -> Any:
    """Draw the share of tokens that each two experts of a layer have in common."""
    data = [
        {"row": expert, "expert": other_expert, "share": round(float(share), 6)}
        for expert, shares in enumerate(layer.co_assignment)
        for other_expert, share in enumerate(shares)
    ]
    base = alt.Chart(alt.InlineData(values=data))
    num_experts = len(layer.co_assignment)
    x = _cell_position("expert:O", alt.X, axis=_top_axis(None))
    cells = _draw_cells(base, x, _cell_position("row:O", alt.Y, axis=_left_axis(None)))
    heading = _small_heading("share of tokens sent to both; on the diagonal, to one")
    return alt.layer(*cells).properties(
        width=CELL * num_experts, height=ROW * num_experts, title=heading
    )


def _draw_cells(base: Any, x: Any, y: Any) -> list[Any]:
    """Draw shares as cells, with digits in those of at least `DIGITS`."""
    digits = base.transform_calculate(digits="replace(format(datum.share, '.2f'), '0.', '.')")
    opacity = alt.FillOpacity(
        "share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.6]), legend=None
    )
    return [
        base.mark_rect(fill=VARIANTS[0], stroke=INK, strokeOpacity=0.08).encode(
            x=x, y=y, fillOpacity=opacity, tooltip=[alt.Tooltip("share:Q", format=".3f")]
        ),
        digits.transform_filter(f"datum.share >= {DIGITS}")
        .mark_text(fontSize=10, baseline="middle", opacity=0.9)
        .encode(x=x, y=y, text="digits:N"),
    ]


def _cell_position(field: str, channel: type, axis: Any) -> Any:
    return channel(field, axis=axis, scale=alt.Scale(paddingInner=0, paddingOuter=0))


def _small_heading(text: str) -> Any:
    return alt.TitleParams(text, fontSize=11, fontWeight="normal", offset=6)


def _top_axis(title: str | None) -> Any:
    return alt.Axis(orient="top", title=title, grid=False, labelAngle=0)


def _left_axis(title: str | None) -> Any:
    return alt.Axis(title=title, grid=False)
