"""The mixing of one layer: a square of shares, one row for each position."""

from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import apply_theme

SIDE = 300
"""Pixels of the square."""


def draw_mixing(shares: Float[np.ndarray, "query key"], description: str) -> Any:
    """Draw rows of shares, each from white at 0 to blue at the row's maximum.

    Long rows have small shares, so each row has a scale of its own: the figure shows from where a
    position reads, not how sharply.
    """
    relative_shares = shares / shares.max(axis=1, keepdims=True).clip(min=np.finfo(np.float64).tiny)
    data = [
        {"query": query, "key": key, "share": round(float(value), 3)}
        for query, row in enumerate(relative_shares)
        for key, value in enumerate(row)
    ]
    last = len(shares) - 1
    axis = alt.Axis(values=[0, last // 2, last], grid=False, labelAngle=0)
    chart = alt.Chart(alt.InlineData(values=data)).mark_rect().encode(
        x=alt.X("key:O", title="position that is read", axis=axis),
        y=alt.Y("query:O", title="position that is written", axis=axis),
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(domain=[0, 1], range=["#f4f6f8", "#0072B2"], interpolate="rgb"),
            legend=None,
        ),
    )  # fmt: skip
    return apply_theme(chart.properties(width=SIDE, height=SIDE, description=description))
