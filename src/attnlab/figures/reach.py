"""The reach of each head: the share of its attention at each distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from attnlab.figures.base import apply_theme

CELL = (46, 20)
"""Pixels of a cell: width and height."""


@dataclass(frozen=True, eq=False)
class ReachPanel:
    """The heads of a model, from the lowest layer up."""

    title: str
    caption: Sequence[str]
    names: Sequence[str]
    distances: Sequence[str]
    """The labels of the columns, from the token itself to the furthest distance back."""
    shares: Float[np.ndarray, "head distance"]
    """Attention at each distance; a row sums to 1."""


def draw_reach(models: Sequence[ReachPanel], num_columns: int = 2) -> Any:
    """Draw a row of numbers for each head, from white at 0 to blue at 1 in every model."""
    return apply_theme(
        alt.concat(
            *(_draw_heads(model) for model in models), columns=num_columns, spacing=34
        ).properties(
            description=f"Attention by distance: {', '.join(model.title for model in models)}"
        )
    )


def _draw_heads(model: ReachPanel) -> Any:
    """Draw the attention of each head at each distance as cells with digits."""
    data = [
        {"head": name, "distance": distance, "share": round(float(share), 4)}
        for name, row in zip(model.names, model.shares, strict=True)
        for distance, share in zip(model.distances, row, strict=True)
    ]
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=alt.X(
            "distance:O",
            sort=list(model.distances),
            title="tokens back",
            axis=alt.Axis(orient="bottom", labelAngle=0, grid=False),
        ),
        y=alt.Y("head:O", sort=list(model.names), title=None, axis=alt.Axis(grid=False)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(domain=[0, 1], range=["#ffffff", "#0072B2"], interpolate="rgb"),
            legend=None,
        )
    )
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text("label:N"),
        color=alt.condition("datum.share > 0.5", alt.value("white"), alt.value("#222222")),
    )
    numbers = numbers.transform_calculate(label="replace(format(datum.share, '.2f'), '0.', '.')")
    return alt.layer(cells, numbers).properties(
        width=CELL[0] * len(model.distances),
        height=CELL[1] * len(model.names),
        title=alt.TitleParams(
            model.title, subtitle=list(model.caption), fontSize=13, subtitlePadding=4, offset=8
        ),
    )
