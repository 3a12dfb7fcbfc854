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

from attnlab.figures.base import INK, themed, visible

COLOURS = ("#f7fbff", "#6baed6", "#08306b")
"""Of 0, one half and 1: one hue, which a grey print keeps in order."""
LARGE, SMALL = 460, 150
"""Pixels of the longer side of one map, and of each of many."""
CELL = 26
"""Pixels of a cell at most."""
DIGITS = 20
"""Cells have their weight in digits up to this many queries and keys."""
READABLE = 7.0
"""Pixels below which a cell has no room for the name of its token."""
LETTER = 5.6
"""Pixels of a character of the caption on average; a line has 56 characters or more."""


@dataclass(frozen=True, eq=False)
class Map:
    """The weights of one head."""

    title: str
    queries: Sequence[str]
    keys: Sequence[str]
    weights: Float[np.ndarray, "query key"]
    at: int | None = None
    """The query that is set in bold."""


def heat_map(one: Map, title: str, caption: Sequence[str], of: tuple[str, str]) -> Any:
    """Draw one map; `of` says what the queries and what the keys are, `caption` stands below."""
    side = min(CELL * max(one.weights.shape), LARGE)
    width = side * one.weights.shape[1] / max(one.weights.shape)
    return _whole([[_panel(one, side, of, "weights", digits=True)]], title, caption, width)


def multiples(
    rows: Sequence[Sequence[Map]], title: str, caption: Sequence[str], of: Sequence[tuple[str, str]]
) -> Any:
    """Draw a row of maps for each layer; `of` says of each row what its queries and keys are.

    Raises ValueError where there is none.
    """
    if not any(rows):
        raise ValueError("there is no map to draw")
    names = (f"weights-{number}" for number in count())
    last = len(rows) - 1
    drawn = []
    for at, row in enumerate(rows):
        # What stands in the column above and below has the same keys, so they are named once.
        same = at < last and [*rows[at + 1][0].keys] == [*row[0].keys] and of[at + 1] == of[at]
        across = {"named_keys": not same}
        drawn.append(
            [
                _panel(one, SMALL, of[at], next(names), named_queries=first == 0, **across)
                for first, one in enumerate(row)
            ]
        )
    width = max(
        sum(14 + SMALL * one.weights.shape[1] / max(one.weights.shape) for one in row)
        for row in rows
    )
    return _whole(drawn, title, caption, width)


def _whole(rows: Sequence[Sequence[Any]], title: str, caption: Sequence[str], width: float) -> Any:
    maps = alt.vconcat(*(alt.hconcat(*row, spacing=14) for row in rows), spacing=16)
    lines = [line for said in caption for line in wrap(said, max(56, int(width / LETTER)))]
    below = (
        alt.Chart(alt.InlineData(values=[{"line": at, "said": s} for at, s in enumerate(lines)]))
        .mark_text(align="left", baseline="middle", fontSize=11, opacity=0.85)
        .encode(
            x=alt.value(0),
            y=alt.Y("line:O", axis=None),
            text="said:N",
        )
        .properties(height=16 * len(lines), width=width)
    )
    head = alt.TitleParams(title, fontSize=14, offset=12)
    return themed(alt.vconcat(maps, below, spacing=16).properties(title=head))


def _panel(
    one: Map,
    side: int | float,
    of: tuple[str, str],
    name: str,
    *,
    digits: bool = False,
    named_queries: bool = True,
    named_keys: bool = True,
) -> Any:
    num_queries, num_keys = one.weights.shape
    cell = side / max(one.weights.shape)
    data = [
        {
            "query": query,
            "key": key,
            "weight": round(float(weight), 4),
            "from": visible(one.queries[query]),
            "to": visible(one.keys[key]),
        }
        for query, row in enumerate(one.weights)
        for key, weight in enumerate(row)
    ]
    scale = alt.Scale(domain=[0, 1], range=list(COLOURS), interpolate="rgb", clamp=True)
    legend = alt.Legend(title="weight", gradientLength=min(120, max(60, cell * num_queries)))
    # Altair copies a list, however long, each time that a chart becomes part of another.
    given = alt.InlineData(
        values=json.dumps(data), format=alt.JsonDataFormat(type="json"), name=name
    )
    base = alt.Chart(given).encode(
        x=alt.X("key:O", axis=_axis(one.keys, of[1], cell, -90, None) if named_keys else None),
        y=alt.Y(
            "query:O", axis=_axis(one.queries, of[0], cell, 0, one.at) if named_queries else None
        ),
        tooltip=["from:N", "to:N", alt.Tooltip("weight:Q", format=".3f")],
    )
    layers = [base.mark_rect().encode(color=alt.Color("weight:Q", scale=scale, legend=legend))]
    if digits and max(one.weights.shape) <= DIGITS:
        numbers = base.transform_filter("datum.weight >= 0.005").mark_text(
            fontSize=min(10, cell * 0.38)
        )
        layers.append(
            numbers.transform_calculate(
                number="replace(format(datum.weight, '.2f'), '0.', '.')"
            ).encode(
                text="number:N",
                color=alt.condition("datum.weight > 0.45", alt.value("white"), alt.value("black")),
            )
        )
    # The frame of the view lies beneath the cells.
    frame = alt.Chart(alt.InlineData(values=[{}])).mark_rect(
        filled=False, stroke=INK, strokeOpacity=0.35
    )
    ends = {"x": alt.value(0), "x2": alt.value(cell * num_keys), "y": alt.value(0)}
    layers.append(frame.encode(**ends, y2=alt.value(cell * num_queries)))
    if one.title:
        # A title of the panel stands above all of it, also above a vertical one of its axis.
        title = alt.Chart(alt.InlineData(values=[{}])).mark_text(
            text=one.title, fontSize=11, baseline="bottom"
        )
        layers.append(title.encode(x=alt.value(cell * num_keys / 2), y=alt.value(-5)))
    return alt.layer(*layers).properties(width=cell * num_keys, height=cell * num_queries)


def _axis(
    tokens: Sequence[str], title: str, cell: int | float, angle: int, bold: int | None
) -> Any:
    """Name the tokens where there is room, and some positions and the bold one where is none."""
    weight: Any = "normal"
    if bold is not None:
        weight = {"condition": {"test": f"datum.value == {bold}", "value": "bold"}, "value": weight}
    look: dict[str, Any] = {"title": title, "grid": False, "titleFontSize": 11}
    look |= {"labelFontWeight": weight, "labelOverlap": False}
    if cell < READABLE:
        step = max(1, len(tokens) // 5)
        places = list(range(0, len(tokens), step))
        if bold is not None:
            # What is next to it would stand in its way.
            places = [bold, *(place for place in places if 2 * abs(place - bold) >= step)]
        return alt.Axis(**look, values=sorted(places), labelFontSize=9, labelAngle=0)
    return alt.Axis(
        **look,
        labelExpr=f"{json.dumps([visible(token) for token in tokens])}[datum.value]",
        labelFontSize=min(11, max(7, cell - 2)),
        labelAngle=angle,
        labelLimit=200,
        labelPadding=4,
    )
