"""Curves over steps or over a length: the mean over seeds of every arm, and its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt

from attnlab.figures.base import colours, themed

DASHES = ([1, 0], [5, 3], [1, 2.5], [7, 2, 1, 2], [10, 4], [3, 1])


@dataclass(frozen=True)
class CurvePoint:
    """An arm at one step or length: the mean of n seeds and its interval (n = 1: the mean)."""

    arm: str
    name: str
    """It determines the colour: a variant, or the arm if the variant is ambiguous."""
    depth: str
    """It determines the dashes."""
    n: int
    step: int
    mean: float
    low: float
    high: float


def curves(
    points: Sequence[CurvePoint],
    metric: str,
    palette: Mapping[str, str] | None = None,
    width: int | str = 420,
    doubling: str | None = None,
) -> Any:
    """Draw mean lines and interval bands over steps, for each step separately and unsmoothed.

    With `doubling`, the title of the axis, x is a length that doubles instead of a step.

    A name has one colour (that of the palette, if given) and a depth one kind of dashes. Bands are
    clipped at the frame, which fits the means.
    """
    palette = palette or colours([point.name for point in points])
    arms, names, depths = (
        list(dict.fromkeys(getattr(point, field) for point in points))
        for field in ("arm", "name", "depth")
    )
    lowest, highest = min(point.mean for point in points), max(point.mean for point in points)
    margin = 0.04 * (highest - lowest) or 0.04
    y_scale = alt.Scale(domain=[lowest - margin, highest + margin], nice=False, zero=False)
    data = [
        {
            key: float(f"{value:.6g}") if isinstance(value, float) else value
            for key, value in asdict(point).items()
        }
        for point in points
    ]
    seed_counts = sorted({point.n for point in points})
    seed_range = (
        f"{seed_counts[0]}" if len(seed_counts) == 1 else f"{seed_counts[0]} to {seed_counts[-1]}"
    )
    base = alt.Chart(alt.InlineData(values=data, name="curves")).encode(
        x=_encode_x(doubling, [point.step for point in points]),
        color=alt.Color(
            "name:N",
            scale=alt.Scale(domain=names, range=[palette[name] for name in names]),
            legend=alt.Legend(title=None, symbolType="stroke", symbolSize=320, symbolOpacity=1),
        ),
        detail="arm:N",
    )
    y = alt.Y("mean:Q", title=None, scale=y_scale)
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=320)
    dash = alt.StrokeDash(
        "depth:N",
        scale=alt.Scale(
            domain=depths, range=[DASHES[index % len(DASHES)] for index in range(len(depths))]
        ),
        legend=legend if len(depths) > 1 else None,
    )
    band = base.mark_area(opacity=0.16, clip=True).encode(
        y=alt.Y("low:Q", title=None, scale=y_scale), y2="high:Q"
    )
    lines = base.mark_line(strokeWidth=2, clip=True).encode(y=y, strokeDash=dash)
    # A line needs two points, and a few lengths are no curve: they are drawn as dots.
    has_dots = len({point.step for point in points}) == 1 or doubling is not None
    dots = base.mark_point(size=50, filled=True, opacity=float(has_dots), clip=True).encode(
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
    subtitle = (
        f"mean and 95 % t-interval at each {'length' if doubling else 'step'}, n = {seed_range}"
    )
    return themed(
        alt.layer(band, lines, dots).properties(
            width=width,
            height=240,
            title=alt.TitleParams(metric, subtitle=subtitle, fontSize=13, offset=10),
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            description=f"Learning curves of {metric}, {subtitle}: {', '.join(arms)}",
        )
    )


def _encode_x(doubling: str | None, steps: Sequence[int]) -> Any:
    if doubling is None:
        return alt.X("step:Q", title="step", axis=alt.Axis(grid=False, format="~s", tickCount=6))
    axis = alt.Axis(grid=False, values=sorted(set(steps)), format="d")
    return alt.X(
        "step:Q", title=doubling, axis=axis, scale=alt.Scale(type="log", base=2, padding=8)
    )
