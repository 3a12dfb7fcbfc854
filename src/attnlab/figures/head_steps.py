"""A measure of every head at every measured step, as rows of coloured cells."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import COLOURS, frame_chart

ROW = 20
"""Pixels of a row."""
MOST_DIGITS = 8
"""The number of steps up to which cells show their value in digits."""


class HeadRow(NamedTuple):
    """The cells of one head."""

    name: str
    href: str
    """Where a click on its cells leads."""
    cells: Sequence[tuple[int, int, float | None, float | None, float | None]]
    """By step: the step, n, the mean and its interval; None where it could not be computed."""


def draw_head_steps(
    rows: Sequence[HeadRow],
    title: str,
    caption: Sequence[str],
    domain: tuple[float, float] | None,
    width: int | str = "container",
) -> Any:
    """Draw each head as a row and each measured step as a column; the colour is the measure.

    `domain` is the range of the colours, without one that of the values. A cell without a mean is
    empty. Raises ValueError for no head.
    """
    if not rows:
        raise ValueError("there is no head to draw")
    data = [
        {
            "head": row.name,
            "href": row.href,
            "step": step,
            "n": n,
            "mean": _rounded(mean),
            "low": _rounded(low),
            "high": _rounded(high),
        }
        for row in rows
        for step, n, mean, low, high in row.cells
        if mean is not None and isfinite(mean)
    ]
    means = [cell["mean"] for cell in data] or [0.0]
    low, high = domain or (min(means), max(means))
    if low == high:
        high = low + 1
    steps = sorted({step for row in rows for step, *_ in row.cells})
    x_axis = alt.Axis(grid=False, labelAngle=0, labelOverlap=True, format=",d")
    tooltip: list[Any] = [
        "head:N",
        "step:O",
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "low", "high")),
        alt.Tooltip("n:Q", title="runs"),
    ]
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=alt.X("step:O", title="step", axis=x_axis, scale=alt.Scale(domain=steps, padding=0)),
        y=alt.Y(
            "head:N",
            title=None,
            sort=None,
            axis=alt.Axis(grid=False, labelLimit=160),
            scale=alt.Scale(domain=[row.name for row in rows], padding=0),
        ),
        tooltip=tooltip,
    )
    colour = alt.Color(
        "mean:Q",
        scale=alt.Scale(
            domain=[low, (low + high) / 2, high], range=list(COLOURS), interpolate="rgb", clamp=True
        ),
        legend=alt.Legend(
            title=None, orient="bottom", gradientLength=160, tickCount=3, format=".2~f"
        ),
    )
    layers = [base.mark_rect(cursor="pointer").encode(color=colour)]
    if len(steps) <= MOST_DIGITS:
        dark = low + 0.45 * (high - low)
        layers.append(
            base.mark_text(fontSize=10, cursor="pointer").encode(
                text=alt.Text("mean:Q", format=".2f"),
                color=alt.condition(f"datum.mean > {dark}", alt.value("white"), alt.value("black")),
            )
        )
    return frame_chart(
        alt.layer(*layers),
        title,
        caption,
        f"{title} of {len(rows)} heads at {len(steps)} steps",
        width=width,
        height=ROW * len(rows),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(f"{value:.6g}")
