"""What is measured of each head over the steps of a run: a row a measure, a column a layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float, Int

from attnlab.figures.base import VARIANTS, themed

DASHES = ([1, 0], [5, 3], [1, 2.5])
"""After the last colour, heads begin with the first again, in other dashes."""
WIDTH, HEIGHT = 190, 110
SHARES = {
    *("previous", "current", "next", "first", "sink", "confidence", "normalised_entropy"),
    *("duplicate_token", "induction", "prefix_matching"),
}
"""Measures from 0 to 1; they have that axis, so that any two of them can be compared by eye."""

Course = tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]]


def heads(
    layers: Mapping[str, Mapping[str, Course]],
    measures: Sequence[str],
    title: str,
    thresholds: Mapping[str, float] | None = None,
) -> Any:
    """Draw measures of every head at each measured step, unsmoothed: {layer: {measure: course}}.

    A head has its colour in all layers, which says nothing of heads of other layers. A dotted line
    marks a threshold, where one is given. Raises ValueError for a measure that no layer has.
    """
    for measure in measures:
        if not any(measure in of_layer for of_layer in layers.values()):
            raise ValueError(f"no layer has the measure {measure!r}, so there is nothing to draw")
    widest = max(values.shape[1] for of_layer in layers.values() for _, values in of_layer.values())
    numbers = list(map(str, range(widest)))
    marked = thresholds is not None and not thresholds.keys().isdisjoint(measures)
    said = "dotted: above it, a score names its head" if marked else ""
    rows = []
    for measure in measures:
        frame = _frame(
            [of_layer[measure][1] for of_layer in layers.values() if measure in of_layer]
        )
        domain = [0.0, 1.0] if measure in SHARES else frame
        panels = [
            _panel(
                of_layer.get(measure),
                layer if measure == measures[0] else "",
                measure.replace("_", " ") if at == 0 else None,
                domain,
                numbers,
                (thresholds or {}).get(measure),
                measure == measures[-1],
            )
            for at, (layer, of_layer) in enumerate(layers.items())
        ]
        rows.append(alt.hconcat(*panels, spacing=22))
    return themed(
        alt.vconcat(*rows, spacing=14).properties(
            title=alt.TitleParams(title, subtitle=said, fontSize=13, offset=12),
            description=f"{', '.join(measures)} of every head of {len(layers)} layers over steps",
        )
    )


def _panel(
    course: Course | None,
    heading: str,
    title: str | None,
    domain: Sequence[float],
    numbers: Sequence[str],
    threshold: float | None,
    last: bool,
) -> Any:
    steps, values = course or (np.zeros(0, dtype=int), np.zeros((0, 0)))
    data = [
        {"step": int(step), "head": str(head), "value": float(f"{value:.6g}")}
        for step, row in zip(steps, values, strict=True)
        for head, value in enumerate(row)
        if np.isfinite(value)
    ]
    y = alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=list(domain), nice=False),
        axis=alt.Axis(tickCount=3),
    )
    x = alt.X(
        "step:Q",
        title="step" if last else None,
        axis=alt.Axis(grid=False, format=",d", tickCount=4, labels=last),
    )
    legend = alt.Legend(title="head", symbolType="stroke", symbolSize=320, symbolOpacity=1)
    dashes = [DASHES[at // len(VARIANTS) % len(DASHES)] for at in range(len(numbers))]
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=x,
        y=y,
        color=alt.Color(
            "head:N",
            scale=alt.Scale(
                domain=list(numbers),
                range=[VARIANTS[at % len(VARIANTS)] for at in range(len(numbers))],
            ),
            legend=legend,
        ),
        strokeDash=alt.StrokeDash(
            "head:N", scale=alt.Scale(domain=list(numbers), range=dashes), legend=legend
        ),
    )
    # One step alone is no line.
    dots = base.mark_point(size=22, filled=True, opacity=float(len(steps) < 12)).encode(
        tooltip=["head:N", "step:Q", alt.Tooltip("value:Q", format=".4f")]
    )
    layers = [base.mark_line(strokeWidth=1.8), dots]
    if threshold is not None:
        rule = alt.Chart(alt.InlineData(values=[{"value": threshold}]))
        layers.insert(0, rule.mark_rule(strokeDash=[2, 3], opacity=0.5).encode(y=y))
    return alt.layer(*layers).properties(
        width=WIDTH, height=HEIGHT, title=alt.TitleParams(heading, fontSize=11, offset=6)
    )


def _frame(parts: Sequence[Float[np.ndarray, "step head"]]) -> list[float]:
    """Give an axis from 0, or from the lowest value below it, to the highest."""
    values = np.concatenate([part.ravel() for part in parts])
    values = values[np.isfinite(values)]
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    return [low, 1.04 * high or 1.0]
