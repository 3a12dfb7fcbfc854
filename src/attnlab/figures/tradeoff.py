"""A metric against a cost, with the arms that no other arm beats in both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import INK, REST, frame_chart

WIDE_RATIO = 8
"""The ratio of the largest to the smallest cost from which the axis is logarithmic."""


class TradeoffPoint(NamedTuple):
    """An arm: its cost, and the mean and interval of its metric."""

    title: str
    colour: str | None
    """None for an arm that is not highlighted."""
    cost: float
    n: int
    mean: float
    low: float | None
    high: float | None


def draw_tradeoff(
    points: Sequence[TradeoffPoint],
    cost: str,
    metric: str,
    *,
    higher_is_better: bool,
    caption: Sequence[str] = (),
    width: int | str = 420,
) -> Any:
    """Draw each arm as a point with the interval of its metric, and the front as a line."""
    front = best_at_each_cost(points, higher_is_better=higher_is_better)
    values = [
        {
            "arm": point.title,
            "cost": point.cost,
            "mean": point.mean,
            "low": point.low,
            "high": point.high,
            "n": point.n,
            "front": point in front,
        }
        for point in points
    ]
    costs = [point.cost for point in points]
    is_wide = min(costs) > 0 and max(costs) / min(costs) >= WIDE_RATIO
    scale = alt.Scale(type="log", nice=False, padding=20) if is_wide else alt.Scale(zero=False)
    x = alt.X(
        "cost:Q", title=cost, scale=scale, axis=alt.Axis(grid=False, format="~s", tickCount=5)
    )
    y_title = f"{metric} ({'higher' if higher_is_better else 'lower'} is better)"
    y_scale = alt.Scale(zero=False)
    colour = alt.Color(
        "arm:N",
        legend=None,
        scale=alt.Scale(
            domain=[point.title for point in points],
            range=[point.colour or REST for point in points],
        ),
    )
    base = alt.Chart(alt.InlineData(values=values)).encode(x=x, color=colour)
    intervals = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        y=alt.Y("low:Q", title=y_title, scale=y_scale), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=alt.Y("mean:Q", title=y_title, scale=y_scale),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("cost:Q", title=cost, format=".4s"),
            *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("mean", "low", "high")),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    line = (
        alt.Chart(alt.InlineData(values=[{"cost": p.cost, "best": p.mean} for p in front]))
        .mark_line(interpolate="step-after", strokeDash=[4, 3], opacity=0.6, color=INK)
        .encode(x=x, y=alt.Y("best:Q", title=y_title, scale=y_scale))
    )
    title = f"{metric} by {cost}"
    chart = alt.layer(line, intervals, dots)
    return frame_chart(
        chart,
        title,
        caption,
        f"{title}: {'; '.join(point.title for point in points)}",
        width=width,
        height=240,
    )


def best_at_each_cost(
    points: Sequence[TradeoffPoint], *, higher_is_better: bool
) -> list[TradeoffPoint]:
    """Return the points whose mean no point of the same or a lower cost reaches, by cost."""
    sign = -1 if higher_is_better else 1
    front: list[TradeoffPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, sign * point.mean)):
        if not front or sign * point.mean < sign * front[-1].mean:
            front.append(point)
    return front
