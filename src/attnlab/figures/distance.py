"""What is read from each distance: a line for each arm or layer, over bins of distances."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from attnlab.figures.base import DASHES, INK, MOST_BANDS, REST, frame_chart

HEIGHT = 240


class DistanceLine(NamedTuple):
    """The shares of an arm or a layer."""

    title: str
    colour: str | None
    """None for a line that stays grey."""
    dash: int
    shares: Sequence[tuple[int, float | None, float | None, float | None]]
    """By bin: n, the mean and its interval; None where there is none."""


def draw_distance(
    lines: Sequence[DistanceLine],
    bins: Sequence[str],
    equal: Sequence[float] | None,
    title: str,
    caption: Sequence[str],
    width: int | str = "container",
) -> Any:
    """Draw the share of all that is read at each distance, with intervals as bands.

    A dotted line is what an equal share of every token would be. Bands are drawn for up to
    `MOST_BANDS` lines. A page's script brings the arms of the parameter `chosen` forward.
    """
    data = [
        {
            "arm": line.title,
            "distance": bin_name,
            "n": n,
            "share": _rounded(mean),
            "low": _rounded(low),
            "high": _rounded(high),
        }
        for line in lines
        for bin_name, (n, mean, low, high) in zip(bins, line.shares, strict=True)
        if mean is not None
    ]
    x = alt.X(
        "distance:O",
        sort=None,
        scale=alt.Scale(domain=list(bins)),
        title="tokens back from the position that reads",
        axis=alt.Axis(grid=False, labelAngle=0, labelOverlap=True),
    )

    def at(name: str) -> Any:
        return alt.Y(
            f"{name}:Q",
            title="share of what is read",
            scale=alt.Scale(zero=True, nice=True),
            axis=alt.Axis(format="%", tickCount=5),
        )

    titles = [line.title for line in lines]
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=1,
        labelLimit=320,
        symbolType="stroke",
        symbolOpacity=1,
    )
    colour = alt.Color(
        "arm:N",
        legend=legend,
        scale=alt.Scale(domain=titles, range=[line.colour or REST for line in lines]),
    )
    dash = alt.StrokeDash(
        "arm:N",
        legend=legend,
        scale=alt.Scale(domain=titles, range=[list(DASHES[line.dash]) for line in lines]),
    )
    base = alt.Chart(alt.InlineData(values=data)).encode(x=x, color=colour)
    layers = []
    rows_with_interval = [row for row in data if row["low"] is not None]
    if rows_with_interval and len(lines) <= MOST_BANDS:
        band = alt.Chart(alt.InlineData(values=rows_with_interval)).mark_area(opacity=0.13)
        layers.append(band.encode(x=x, y=at("low"), y2="high:Q", color=colour))
    if equal is not None:
        rows = [
            {"distance": name, "share": _rounded(share)}
            for name, share in zip(bins, equal, strict=True)
        ]
        alike = alt.Chart(alt.InlineData(values=rows)).mark_line(
            strokeDash=[1, 3], strokeWidth=1.6, opacity=0.7, color=INK
        )
        layers.append(alike.encode(x=x, y=at("share")))
    layers.append(base.mark_line(strokeWidth=2).encode(y=at("share"), strokeDash=dash))
    tooltip = [
        alt.Tooltip("arm:N", title="of"),
        alt.Tooltip("distance:O", title="tokens back"),
        *(alt.Tooltip(f"{name}:Q", format=".2%") for name in ("share", "low", "high")),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    dots = base.mark_point(size=34, filled=True, opacity=1)
    layers.append(dots.encode(y=at("share"), tooltip=tooltip))
    return frame_chart(
        alt.layer(*layers),
        title,
        caption,
        f"{title}, {' '.join(caption)}: {'; '.join(titles)}",
        width=width,
        height=HEIGHT,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
