"""Who looks at whom: a sentence beside itself, and lines as dark as the weights (Uszkoreit 2017).

A line's opacity is its weight, from 0 to 1 and without any other scale, so panels of different
models can be compared by eye.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import INK, ROLES, themed, visible

ROW = 17
"""Pixels from a token to the next."""
GAP, NUMBER = 54, 26
"""Pixels that the lines cross, and that a weight in digits takes."""


@dataclass(frozen=True, eq=False)
class View:
    """How one query of one head weighs the tokens of a sentence."""

    title: str
    tokens: Sequence[str]
    query: int
    weights: Float[np.ndarray, " key"]
    roles: Mapping[int, str] = field(default_factory=dict)
    """The role of a token, by its position."""


@dataclass(frozen=True)
class Arm:
    """A model's row: its name, what else is known of it, its views."""

    title: str
    caption: Sequence[str]
    views: Sequence[View]


def panel(view: View) -> Any:
    """Draw one view; the data set `weights` has a row for each token, to be replaced by others."""
    return themed(_panel(view, "weights", legend=None))


def rows(arms: Sequence[Arm], columns: int = 2) -> Any:
    """Draw the views of each arm side by side, with `columns` arms in a row, for print."""
    roles = role_colours(view for arm in arms for view in arm.views)
    legend = alt.Legend(
        title=None, orient="top", values=list(roles), symbolType="square", symbolSize=110
    )
    names = (f"weights-{number}" for number in count())
    pairs = [
        alt.hconcat(
            *(_panel(view, next(names), legend if roles else None) for view in arm.views),
            spacing=12,
        ).properties(
            title=alt.TitleParams(
                arm.title, subtitle=list(arm.caption), fontSize=13, subtitlePadding=4, offset=8
            )
        )
        for arm in arms
    ]
    whole = alt.concat(*pairs, columns=columns, spacing={"row": 30, "column": 44})
    return themed(whole)


def records(view: View) -> list[dict[str, Any]]:
    """Write a view as the rows that `panel` draws."""
    return [
        {
            "key": key,
            "token": visible(token),
            "weight": round(float(weight), 6),
            "query": view.query,
            "role": view.roles.get(key, ""),
        }
        for key, (token, weight) in enumerate(zip(view.tokens, view.weights, strict=True))
    ]


def role_colours(views: Iterable[View]) -> dict[str, str]:
    """Return the colour of each role that a token has in some views; in alphabetical order."""
    roles = sorted({role for view in views for role in view.roles.values()})
    return dict(zip(roles, cycle(ROLES), strict=False))


def _panel(view: View, name: str, legend: alt.Legend | None) -> Any:
    data = records(view)
    # Seven pixels are an average character of a wide system font at the size below.
    column = 10 + 7.0 * max(len(row["token"]) for row in data)
    right = column + GAP
    is_query = "datum.key === datum.query"
    has_role = "datum.role !== ''"
    roles = role_colours([view])
    # Every mark has the same scale, in which a token is one unit high.
    scale = alt.Scale(domain=[-0.5, len(data) - 0.5], reverse=True, nice=False, zero=False)

    def at(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=scale, axis=None)

    def tinted(channel: type, others: str, legend: alt.Legend | None = None) -> Any:
        scale = alt.Scale(domain=[*roles, ""], range=[*roles.values(), others])
        return channel("role:N", scale=scale, legend=legend)

    def shaded(channel: type, darkest: float) -> Any:
        scale = alt.Scale(domain=[0, 1], range=[0, darkest], clamp=True)
        return channel("weight:Q", scale=scale, legend=None)

    base = (
        alt.Chart(alt.InlineData(values=data, name=name))
        .transform_calculate(
            top="datum.key - 0.42",
            bottom="datum.key + 0.42",
            number="replace(format(datum.weight, '.2f'), '0.', '.')",
        )
        .encode(tooltip=["token:N", alt.Tooltip("weight:Q", format=".3f")])
    )
    shades = base.mark_rect(cornerRadius=3, strokeWidth=1.5).encode(
        x=alt.value(right),
        x2=alt.value(right + column),
        y=at("top"),
        y2="bottom:Q",
        fill=tinted(alt.Fill, INK, legend),
        fillOpacity=shaded(alt.FillOpacity, 0.6),
        stroke=tinted(alt.Stroke, "transparent", legend),
    )
    lines = base.mark_rule(strokeWidth=3, strokeCap="round").encode(
        x=alt.value(column),
        x2=alt.value(right - 4),
        y=at("query"),
        y2="key:Q",
        color=tinted(alt.Color, INK),
        strokeOpacity=shaded(alt.StrokeOpacity, 1.0),
    )

    def words(where: float, align: str, test: str, text: str = "token", **style: Any) -> alt.Chart:
        return (
            base.transform_filter(test)
            .mark_text(align=align, baseline="middle", fontSize=12, **style)  # pyright: ignore[reportArgumentType]
            .encode(x=alt.value(where), y=at("key"), text=f"{text}:N")
        )

    # Wider than its words, so that a finger can choose a query.
    reach = base.mark_rect(opacity=0, cursor="pointer").encode(
        x=alt.value(0), x2=alt.value(column), y=at("top"), y2="bottom:Q"
    )
    return (
        alt.layer(
            shades,
            lines,
            words(column - 5, "right", is_query, fontWeight=700),
            words(column - 5, "right", f"!({is_query})", opacity=0.6),
            words(right + 5, "left", has_role, fontWeight=700),
            words(right + 5, "left", f"!({has_role})", opacity=0.8),
            words(right + column + 4, "left", f"{has_role} || datum.weight >= 0.1", "number"),
            reach.properties(name="reach"),
        )
        .properties(width=right + column + NUMBER, height=ROW * len(data))
        .properties(title=alt.TitleParams(view.title, fontSize=12, fontWeight="normal", offset=6))
    )
