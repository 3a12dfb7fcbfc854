"""The token vectors of one step on a plane, with the way that each of them took."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import (
    COLOURS,
    HIGHLIGHTS,
    REST,
    VARIANTS,
    frame_chart,
    visible_text,
)

HEIGHT = 420
MOST_NAMES = 60
"""The number of tokens up to which their names stand beside the points."""
NAMES_FROM = 480
"""Pixels of the figure's width from which on names have room."""


def draw_embedding_step(
    tokens: Sequence[str],
    places: Float[np.ndarray, "token 2"],
    frame: tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]],
    colours: Sequence[str] | Sequence[int],
    chosen: str,
    title: str,
    caption: Sequence[str],
    axis_titles: tuple[str, str],
    width: int | str = "container",
) -> Any:
    """Draw each token as a point, coloured by its kind (text) or by a count; a tooltip names it.

    `frame` has the lowest and the highest coordinates of all steps, so that steps can be compared.
    The `chosen` token has a ring.
    """
    is_counted = all(isinstance(value, int) for value in colours)
    data = [
        {"token": visible_text(token), "x": x, "y": y, "of": of, "chosen": token == chosen}
        for token, (x, y), of in zip(tokens, places.round(6).tolist(), colours, strict=True)
    ]
    low, high = frame
    margin = 0.06 * (high - low) + 1e-9

    def at(channel: type, place: int) -> Any:
        domain = [float(low[place] - margin[place]), float(high[place] + margin[place])]
        return channel(
            f"{'xy'[place]}:Q",
            title=axis_titles[place],
            scale=alt.Scale(domain=domain, nice=False, zero=False),
            axis=alt.Axis(tickCount=5),
        )

    base = alt.Chart(alt.InlineData(values=data)).encode(x=at(alt.X, 0), y=at(alt.Y, 1))
    points = base.mark_circle(size=42, opacity=0.9).encode(
        color=_count_colour() if is_counted else _kind_colour([str(value) for value in colours]),
        tooltip=[
            alt.Tooltip("token:N"),
            alt.Tooltip("of:N", title="times recorded" if is_counted else "kind"),
            alt.Tooltip("x:Q", format=".3f"),
            alt.Tooltip("y:Q", format=".3f"),
        ],
    )
    ring = base.transform_filter("datum.chosen").mark_point(
        size=150, strokeWidth=2, color=VARIANTS[1]
    )
    layers = [points, ring]
    if len(tokens) <= MOST_NAMES:
        layers.append(
            base.mark_text(
                align="left",
                dx=6,
                fontSize=10,
                opacity=alt.ExprRef(f"width > {NAMES_FROM} ? 0.85 : 0"),
            ).encode(text="token:N")
        )
    return frame_chart(
        alt.layer(*layers),
        title,
        caption,
        f"{title}, {len(tokens)} token vectors",
        width=width,
        height=HEIGHT,
    )


def _kind_colour(kinds: Sequence[str]) -> Any:
    names = list(dict.fromkeys(kinds))
    shown = [*HIGHLIGHTS[: len(names)], *[REST] * (len(names) - len(HIGHLIGHTS))]
    legend = alt.Legend(title=None, orient="bottom", columns=3, labelLimit=150)
    return alt.Color("of:N", scale=alt.Scale(domain=names, range=shown), legend=legend)


def _count_colour() -> Any:
    legend = alt.Legend(title=None, orient="bottom", gradientLength=160, tickCount=3)
    scale = alt.Scale(type="sqrt", range=list(COLOURS[1:]), interpolate="rgb")
    return alt.Color("of:Q", scale=scale, legend=legend)


def draw_embedding_course(
    steps: Sequence[int],
    value_by_name: Mapping[str, Sequence[float]],
    at: int,
    title: str,
    caption: Sequence[str],
    width: int | str = "container",
) -> Any:
    """Draw how far the vectors are from those of the last step; a line marks the step `at`."""
    names = list(value_by_name)
    data = [
        {"step": step, "of": name, "value": float(f"{value:.6g}")}
        for name, values in value_by_name.items()
        for step, value in zip(steps, values, strict=True)
    ]
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s", tickCount=6))
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=x,
        y=alt.Y("value:Q", title="distance to the last step", axis=alt.Axis(tickCount=5)),
        color=alt.Color(
            "of:N",
            scale=alt.Scale(domain=names, range=list(VARIANTS[: len(names)])),
            legend=alt.Legend(
                title=None, orient="bottom", columns=1, symbolType="stroke", labelLimit=340
            ),
        ),
    )
    tooltip = ["of:N", alt.Tooltip("step:Q", format=",d"), alt.Tooltip("value:Q", format=".3f")]
    dots = base.mark_point(size=30, filled=True, opacity=1).encode(tooltip=tooltip)
    rule = alt.Chart(alt.InlineData(values=[{"step": steps[at]}])).mark_rule(
        strokeDash=[3, 3], opacity=0.6
    )
    return frame_chart(
        alt.layer(rule.encode(x=x), base.mark_line(strokeWidth=1.8), dots),
        title,
        caption,
        f"{title}, {' '.join(caption)}",
        width=width,
        height=HEIGHT,
    )
