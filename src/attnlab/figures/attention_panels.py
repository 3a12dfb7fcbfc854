"""Attention between two copies of a sentence, as lines of the weights' opacity (Uszkoreit 2017).

A line's opacity is its weight, from 0 to 1 without rescaling, so panels of different models can be
compared by eye.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import INK, ROLES, apply_theme, visible_text

ROW = 17
"""Pixels from a token to the next one."""
GAP, NUMBER = 54, 26
"""Pixels between the two copies, and the width of a weight in digits."""


@dataclass(frozen=True, eq=False)
class View:
    """The weights of one query of one head on the tokens of a sentence."""

    title: str
    tokens: Sequence[str]
    query: int
    weights: Float[np.ndarray, " key"]
    roles: Mapping[int, str] = field(default_factory=dict)
    """The role of a token, by its position."""


@dataclass(frozen=True)
class ArmViews:
    """The views of a model, with its name and a caption."""

    title: str
    caption: Sequence[str]
    views: Sequence[View]


def draw_panel(view: View) -> Any:
    """Draw one view; a page may replace the data set `weights`, which has a row for each token."""
    return apply_theme(_draw_view(view, "weights", legend=None))


def draw_arm_rows(arms: Sequence[ArmViews], num_columns: int = 2) -> Any:
    """Draw the views of each arm side by side, with `num_columns` arms in a row, for print."""
    roles = role_colours(view for arm in arms for view in arm.views)
    legend = alt.Legend(
        title=None, orient="top", values=list(roles), symbolType="square", symbolSize=110
    )
    data_set_names = (f"weights-{number}" for number in count())
    arm_charts = [
        alt.hconcat(
            *(
                _draw_view(view, next(data_set_names), legend if roles else None)
                for view in arm.views
            ),
            spacing=12,
        ).properties(
            title=alt.TitleParams(
                arm.title, subtitle=list(arm.caption), fontSize=13, subtitlePadding=4, offset=8
            )
        )
        for arm in arms
    ]
    chart = alt.concat(*arm_charts, columns=num_columns, spacing={"row": 30, "column": 44})
    return apply_theme(chart)


def token_rows(view: View) -> list[dict[str, Any]]:
    """Return the rows of data that `draw_panel` draws."""
    return [
        {
            "key": key,
            "token": visible_text(token),
            "weight": round(float(weight), 6),
            "query": view.query,
            "role": view.roles.get(key, ""),
        }
        for key, (token, weight) in enumerate(zip(view.tokens, view.weights, strict=True))
    ]


def role_colours(views: Iterable[View]) -> dict[str, str]:
    """Return the colour of each role in some views, in alphabetical order of the roles."""
    roles = sorted({role for view in views for role in view.roles.values()})
    return dict(zip(roles, cycle(ROLES), strict=False))


def _draw_view(view: View, data_set_name: str, legend: alt.Legend | None) -> Any:
    """Draw the tokens twice, with a line from the query to each key by its weight."""
    rows = token_rows(view)
    # An average character of a wide system font has seven pixels at the font size below.
    column_width = 10 + 7.0 * max(len(row["token"]) for row in rows)
    right_edge = column_width + GAP
    is_query = "datum.key === datum.query"
    has_role = "datum.role !== ''"
    roles = role_colours([view])
    # All marks share one scale, in which a token is one unit high.
    scale = alt.Scale(domain=[-0.5, len(rows) - 0.5], reverse=True, nice=False, zero=False)

    def encode_y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=scale, axis=None)

    def encode_role(
        channel: type, colour_without_role: str, legend: alt.Legend | None = None
    ) -> Any:
        scale = alt.Scale(domain=[*roles, ""], range=[*roles.values(), colour_without_role])
        return channel("role:N", scale=scale, legend=legend)

    def encode_weight(channel: type, darkest: float) -> Any:
        scale = alt.Scale(domain=[0, 1], range=[0, darkest], clamp=True)
        return channel("weight:Q", scale=scale, legend=None)

    base = (
        alt.Chart(alt.InlineData(values=rows, name=data_set_name))
        .transform_calculate(
            top="datum.key - 0.42",
            bottom="datum.key + 0.42",
            number="replace(format(datum.weight, '.2f'), '0.', '.')",
        )
        .encode(tooltip=["token:N", alt.Tooltip("weight:Q", format=".3f")])
    )
    shades = base.mark_rect(cornerRadius=3, strokeWidth=1.5).encode(
        x=alt.value(right_edge),
        x2=alt.value(right_edge + column_width),
        y=encode_y("top"),
        y2="bottom:Q",
        fill=encode_role(alt.Fill, INK, legend),
        fillOpacity=encode_weight(alt.FillOpacity, 0.6),
        stroke=encode_role(alt.Stroke, "transparent", legend),
    )
    lines = base.mark_rule(strokeWidth=3, strokeCap="round").encode(
        x=alt.value(column_width),
        x2=alt.value(right_edge - 4),
        y=encode_y("query"),
        y2="key:Q",
        color=encode_role(alt.Color, INK),
        strokeOpacity=encode_weight(alt.StrokeOpacity, 1.0),
    )

    def draw_tokens(
        x: float, align: str, condition: str, text: str = "token", **style: Any
    ) -> alt.Chart:
        return (
            base.transform_filter(condition)
            .mark_text(align=align, baseline="middle", fontSize=12, **style)  # pyright: ignore[reportArgumentType]
            .encode(x=alt.value(x), y=encode_y("key"), text=f"{text}:N")
        )

    # Wider than the tokens, so that a finger can select a query.
    click_area = base.mark_rect(opacity=0, cursor="pointer").encode(
        x=alt.value(0), x2=alt.value(column_width), y=encode_y("top"), y2="bottom:Q"
    )
    return (
        alt.layer(
            shades,
            lines,
            draw_tokens(column_width - 5, "right", is_query, fontWeight=700),
            draw_tokens(column_width - 5, "right", f"!({is_query})", opacity=0.6),
            draw_tokens(right_edge + 5, "left", has_role, fontWeight=700),
            draw_tokens(right_edge + 5, "left", f"!({has_role})", opacity=0.8),
            draw_tokens(
                right_edge + column_width + 4,
                "left",
                f"{has_role} || datum.weight >= 0.1",
                "number",
            ),
            click_area.properties(name="reach"),
        )
        .properties(width=right_edge + column_width + NUMBER, height=ROW * len(rows))
        .properties(title=alt.TitleParams(view.title, fontSize=12, fontWeight="normal", offset=6))
    )
