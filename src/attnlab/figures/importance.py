"""How the variance of a metric divides among the factors of a sweep, as bars."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import REST, VARIANTS, frame_chart, table_data

ROW_HEIGHT = 24


class Share(NamedTuple):
    """A part of the variance."""

    name: str
    share: float
    is_factor: bool
    """Whether it is a factor of the sweep, and not what is left."""


def draw_importance(
    shares: Sequence[Share], title: str, caption: Sequence[str], width: int | str = 420
) -> Any:
    """Draw each share as a bar with its number; factors in colour, the rest in grey."""
    rows = [
        {
            "name": share.name,
            "share": float(f"{share.share:.6g}"),
            "text": f"{100 * share.share:.0f} %",
            "factor": int(share.is_factor),
        }
        for share in shares
    ]
    y = alt.Y(
        "name:N",
        sort=[share.name for share in shares],
        title=None,
        axis=alt.Axis(grid=False, labelLimit=220),
    )
    x = alt.X(
        "share:Q",
        title="share of the variance over runs",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=5),
    )
    base = alt.Chart().encode(y=y, x=x)
    bars = base.mark_bar(height=14, cornerRadiusEnd=2).encode(
        color=alt.condition("datum.factor == 1", alt.value(VARIANTS[0]), alt.value(REST))
    )
    numbers = base.mark_text(align="left", dx=5).encode(text="text:N")
    chart = alt.layer(bars, numbers, data=table_data(rows))
    return frame_chart(
        chart,
        title,
        caption,
        f"{title}: " + ", ".join(f"{row['name']} {row['text']}" for row in rows),
        width=width,
        height=ROW_HEIGHT * len(rows),
    )
