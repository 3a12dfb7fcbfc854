"""Curves over steps, or over a length: the mean over seeds of every arm, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt

from attnlab.figures.base import colours, themed

DASHES = ([1, 0], [5, 3], [1, 2.5], [7, 2, 1, 2], [10, 4], [3, 1])


@dataclass(frozen=True)
class Point:
    """An arm at one step or length: the mean of n seeds and its interval (for one, the mean)."""

    arm: str
    name: str
    """What gives it its colour: a variant, or the arm where that says too little."""
    depth: str
    """What gives it its dashes."""
    n: int
    step: int
    mean: float
    low: float
    high: float


def curves(
    points: Sequence[Point],
    metric: str,
    palette: Mapping[str, str] | None = None,
    width: int | str = 420,
    doubling: str | None = None,
) -> Any:
    """Draw mean lines and interval bands over steps, at each step by itself and unsmoothed.

    With `doubling`, which names it, the axis is no step but a length that doubles.

    A name keeps its colour (that of the palette, if there is one) and a depth its dashes. Bands end
    at the frame, which is drawn around the means.
    """
    palette = palette or colours([point.name for point in points])
    arms, names, depths = (
        list(dict.fromkeys(getattr(point, of) for point in points))
        for of in ("arm", "name", "depth")
    )
    lowest, highest = min(p.mean for p in points), max(p.mean for p in points)
    room = 0.04 * (highest - lowest) or 0.04
    frame = alt.Scale(domain=[lowest - room, highest + room], nice=False, zero=False)
    data = [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(p).items()}
        for p in points
    ]
    seeds = sorted({point.n for point in points})
    said = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    base = alt.Chart(alt.InlineData(values=data, name="curves")).encode(
        x=_axis(doubling, [point.step for point in points]),
        color=alt.Color(
            "name:N",
            scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
            legend=alt.Legend(title=None, symbolType="stroke", symbolSize=320, symbolOpacity=1),
        ),
        detail="arm:N",
    )
    y = alt.Y("mean:Q", title=None, scale=frame)
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=320)
    dash = alt.StrokeDash(
        "depth:N",
        scale=alt.Scale(
            domain=depths, range=[DASHES[at % len(DASHES)] for at in range(len(depths))]
        ),
        legend=legend if len(depths) > 1 else None,
    )
    band = base.mark_area(opacity=0.16, clip=True).encode(
        y=alt.Y("low:Q", title=None, scale=frame), y2="high:Q"
    )
    lines = base.mark_line(strokeWidth=2, clip=True).encode(y=y, strokeDash=dash)
    # A line needs two points, and a few lengths are no curve: they are shown by themselves.
    alone = len({point.step for point in points}) == 1 or doubling is not None
    dots = base.mark_point(size=50, filled=True, opacity=float(alone), clip=True).encode(
        y=y,
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("step:Q", title=doubling or "step"),
            alt.Tooltip("mean:Q", format=".4f"),
            alt.Tooltip("low:Q", format=".4f"),
            alt.Tooltip("high:Q", format=".4f"),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    subtitle = f"mean and 95 % t-interval at each {'length' if doubling else 'step'}, n = {said}"
    return themed(
        alt.layer(band, lines, dots).properties(
            width=width,
            height=240,
            title=alt.TitleParams(metric, subtitle=subtitle, fontSize=13, offset=10),
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            description=f"Learning curves of {metric}, {subtitle}: {', '.join(arms)}",
        )
    )


def _axis(doubling: str | None, steps: Sequence[int]) -> Any:
    if doubling is None:
        return alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s", tickCount=6))
    axis = alt.Axis(grid=False, values=sorted(set(steps)), format="d")
    return alt.X(
        "step:Q", title=doubling, axis=axis, scale=alt.Scale(type="log", base=2, padding=8)
    )
