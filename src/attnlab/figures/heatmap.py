"""Maps of weights for print: one head, or all layers and heads as small multiples.

The colour is the weight, from 0 to 1 and without any other scale, so that maps can be compared.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from textwrap import wrap
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import COLOURS, INK, apply_theme, visible_text

LARGE, SMALL = 460, 150
"""Pixels of the longer side of a single map, and of each small multiple."""
CELL = 26
"""The most pixels of a cell."""
DIGITS = 20
"""The most queries and keys with which cells show their weight in digits."""
READABLE = 7.0
"""The least pixels of a cell that has room for the name of its token."""
LETTER = 5.6
"""The average pixels of a character of the caption; a line has 56 characters or more."""


@dataclass(frozen=True, eq=False)
class Map:
    """The weights of one head."""

    title: str
    queries: Sequence[str]
    keys: Sequence[str]
    weights: Float[np.ndarray, "query key"]
    at: int | None = None
    """The index of the query in bold."""


def draw_heat_map(
    attention_map: Map, title: str, caption: Sequence[str], axis_titles: tuple[str, str]
) -> Any:
    """Draw one map above its caption; `axis_titles` are those of the queries and the keys."""
    longer_side = min(CELL * max(attention_map.weights.shape), LARGE)
    width = longer_side * attention_map.weights.shape[1] / max(attention_map.weights.shape)
    return _draw_above_caption(
        [[_draw_map(attention_map, longer_side, axis_titles, "weights", digits=True)]],
        title,
        caption,
        width,
    )


def draw_small_multiples(
    rows: Sequence[Sequence[Map]],
    title: str,
    caption: Sequence[str],
    axis_titles: Sequence[tuple[str, str]],
) -> Any:
    """Draw a row of maps for each layer; `axis_titles` has those of each row's queries and keys.

    Raises ValueError for no map.
    """
    if not any(rows):
        raise ValueError("there is no map to draw")
    data_names = (f"weights-{number}" for number in count())
    last_row = len(rows) - 1
    panels = []
    for row_index, row in enumerate(rows):
        # If the next row has the same keys, only the lowest of these rows names them.
        same_keys_below = (
            row_index < last_row
            and [*rows[row_index + 1][0].keys] == [*row[0].keys]
            and axis_titles[row_index + 1] == axis_titles[row_index]
        )
        panels.append(
            [
                _draw_map(
                    attention_map,
                    SMALL,
                    axis_titles[row_index],
                    next(data_names),
                    named_queries=column_index == 0,
                    named_keys=not same_keys_below,
                )
                for column_index, attention_map in enumerate(row)
            ]
        )
    width = max(
        sum(
            14 + SMALL * attention_map.weights.shape[1] / max(attention_map.weights.shape)
            for attention_map in row
        )
        for row in rows
    )
    return _draw_above_caption(panels, title, caption, width)


def _draw_above_caption(
    rows: Sequence[Sequence[Any]], title: str, caption: Sequence[str], width: float
) -> Any:
    """Draw rows of maps above the lines of a caption."""
    maps = alt.vconcat(*(alt.hconcat(*row, spacing=14) for row in rows), spacing=16)
    lines = [
        line for paragraph in caption for line in wrap(paragraph, max(56, int(width / LETTER)))
    ]
    text_rows = [{"line": index, "text": line} for index, line in enumerate(lines)]
    text = (
        alt.Chart(alt.InlineData(values=text_rows))
        .mark_text(align="left", baseline="middle", fontSize=11, opacity=0.85)
        .encode(
            x=alt.value(0),
            y=alt.Y("line:O", axis=None),
            text="text:N",
        )
        .properties(height=16 * len(lines), width=width)
    )
    heading = alt.TitleParams(title, fontSize=14, offset=12)
    return apply_theme(alt.vconcat(maps, text, spacing=16).properties(title=heading))


def _draw_map(
    attention_map: Map,
    longer_side: int | float,
    axis_titles: tuple[str, str],
    name: str,
    *,
    digits: bool = False,
    named_queries: bool = True,
    named_keys: bool = True,
) -> Any:
    """Draw one map as cells in a frame; `longer_side` is its pixels."""
    num_queries, num_keys = attention_map.weights.shape
    cell_size = longer_side / max(attention_map.weights.shape)
    data = [
        {
            "query": query,
            "key": key,
            "weight": round(float(weight), 4),
            "from": visible_text(attention_map.queries[query]),
            "to": visible_text(attention_map.keys[key]),
        }
        for query, row in enumerate(attention_map.weights)
        for key, weight in enumerate(row)
    ]
    scale = alt.Scale(domain=[0, 1], range=list(COLOURS), interpolate="rgb", clamp=True)
    legend = alt.Legend(title="weight", gradientLength=min(120, max(60, cell_size * num_queries)))
    # Altair copies a list each time a chart becomes part of another, so the rows are a JSON string.
    inline_data = alt.InlineData(
        values=json.dumps(data), format=alt.JsonDataFormat(type="json"), name=name
    )
    query_title, key_title = axis_titles
    query_axis = _token_axis(attention_map.queries, query_title, cell_size, 0, attention_map.at)
    key_axis = _token_axis(attention_map.keys, key_title, cell_size, -90, None)
    base = alt.Chart(inline_data).encode(
        x=alt.X("key:O", axis=key_axis if named_keys else None),
        y=alt.Y("query:O", axis=query_axis if named_queries else None),
        tooltip=["from:N", "to:N", alt.Tooltip("weight:Q", format=".3f")],
    )
    layers = [base.mark_rect().encode(color=alt.Color("weight:Q", scale=scale, legend=legend))]
    if digits and max(attention_map.weights.shape) <= DIGITS:
        numbers = base.transform_filter("datum.weight >= 0.005").mark_text(
            fontSize=min(10, cell_size * 0.38)
        )
        layers.append(
            numbers.transform_calculate(
                number="replace(format(datum.weight, '.2f'), '0.', '.')"
            ).encode(
                text="number:N",
                color=alt.condition("datum.weight > 0.45", alt.value("white"), alt.value("black")),
            )
        )
    # Altair's own frame of a view would be beneath the cells.
    frame = alt.Chart(alt.InlineData(values=[{}])).mark_rect(
        filled=False, stroke=INK, strokeOpacity=0.35
    )
    corners = {"x": alt.value(0), "x2": alt.value(cell_size * num_keys), "y": alt.value(0)}
    layers.append(frame.encode(**corners, y2=alt.value(cell_size * num_queries)))
    if attention_map.title:
        # Altair's own title would be placed above the whole panel, its axis titles included.
        title = alt.Chart(alt.InlineData(values=[{}])).mark_text(
            text=attention_map.title, fontSize=11, baseline="bottom"
        )
        layers.append(title.encode(x=alt.value(cell_size * num_keys / 2), y=alt.value(-5)))
    return alt.layer(*layers).properties(width=cell_size * num_keys, height=cell_size * num_queries)


def _token_axis(
    tokens: Sequence[str], title: str, cell_size: int | float, angle: int, bold: int | None
) -> Any:
    """Return an axis of tokens if cells have room for them, else of some positions and `bold`."""
    font_weight: Any = "normal"
    if bold is not None:
        font_weight = {
            "condition": {"test": f"datum.value == {bold}", "value": "bold"},
            "value": font_weight,
        }
    style: dict[str, Any] = {"title": title, "grid": False, "titleFontSize": 11}
    style |= {"labelFontWeight": font_weight, "labelOverlap": False}
    if cell_size < READABLE:
        step = max(1, len(tokens) // 5)
        labelled_positions = list(range(0, len(tokens), step))
        if bold is not None:
            # Labels next to the bold one would overlap it.
            labelled_positions = [
                bold,
                *(position for position in labelled_positions if 2 * abs(position - bold) >= step),
            ]
        return alt.Axis(**style, values=sorted(labelled_positions), labelFontSize=9, labelAngle=0)
    return alt.Axis(
        **style,
        labelExpr=f"{json.dumps([visible_text(token) for token in tokens])}[datum.value]",
        labelFontSize=min(11, max(7, cell_size - 2)),
        labelAngle=angle,
        labelLimit=200,
        labelPadding=4,
    )
