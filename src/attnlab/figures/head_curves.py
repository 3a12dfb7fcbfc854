"""Measures of each head over the steps of a run, with a row per measure and a column per layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float, Int

from attnlab.figures.base import VARIANTS, apply_theme

DASHES = ([1, 0], [5, 3], [1, 2.5])
"""When the colours are used up, further heads repeat them with the next dashes."""
WIDTH, HEIGHT = 190, 110
SHARES = {
    *("previous", "current", "next", "first", "sink", "confidence", "normalised_entropy"),
    *("duplicate_token", "induction", "prefix_matching"),
}
"""Measures from 0 to 1; their axis has that range, so any two can be compared by eye."""

History = tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]]


def draw_head_curves(
    layers: Mapping[str, Mapping[str, History]],
    measures: Sequence[str],
    title: str,
    thresholds: Mapping[str, float] | None = None,
) -> Any:
    """Draw measures of every head at each measured step, unsmoothed: {layer: {measure: history}}.

    Heads of the same index have one colour in all layers, which does not relate them. A dotted line
    marks a given threshold. Raises ValueError for a measure that no layer has.
    """
    for measure in measures:
        if not any(measure in histories for histories in layers.values()):
            raise ValueError(f"no layer has the measure {measure!r}, so there is nothing to draw")
    most_heads = max(
        values.shape[1] for histories in layers.values() for _, values in histories.values()
    )
    head_names = list(map(str, range(most_heads)))
    has_threshold = thresholds is not None and not thresholds.keys().isdisjoint(measures)
    subtitle = "dotted: above it, a score names its head" if has_threshold else ""
    rows = []
    for measure in measures:
        value_range = _value_range(
            [histories[measure][1] for histories in layers.values() if measure in histories]
        )
        domain = [0.0, 1.0] if measure in SHARES else value_range
        panels = [
            _draw_panel(
                histories.get(measure),
                layer if measure == measures[0] else "",
                measure.replace("_", " ") if layer_index == 0 else None,
                domain,
                head_names,
                (thresholds or {}).get(measure),
                measure == measures[-1],
            )
            for layer_index, (layer, histories) in enumerate(layers.items())
        ]
        rows.append(alt.hconcat(*panels, spacing=22))
    return apply_theme(
        alt.vconcat(*rows, spacing=14).properties(
            title=alt.TitleParams(title, subtitle=subtitle, fontSize=13, offset=12),
            description=f"{', '.join(measures)} of every head of {len(layers)} layers over steps",
        )
    )


def _draw_panel(
    history: History | None,
    heading: str,
    title: str | None,
    domain: Sequence[float],
    head_names: Sequence[str],
    threshold: float | None,
    is_last_row: bool,
) -> Any:
    """Draw a measure of all heads of one layer over steps, a line for each head."""
    steps, values = history or (np.zeros(0, dtype=int), np.zeros((0, 0)))
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
        title="step" if is_last_row else None,
        axis=alt.Axis(grid=False, format=",d", tickCount=4, labels=is_last_row),
    )
    legend = alt.Legend(title="head", symbolType="stroke", symbolSize=320, symbolOpacity=1)
    dashes = [DASHES[index // len(VARIANTS) % len(DASHES)] for index in range(len(head_names))]
    base = alt.Chart(alt.InlineData(values=data)).encode(
        x=x,
        y=y,
        color=alt.Color(
            "head:N",
            scale=alt.Scale(
                domain=list(head_names),
                range=[VARIANTS[index % len(VARIANTS)] for index in range(len(head_names))],
            ),
            legend=legend,
        ),
        strokeDash=alt.StrokeDash(
            "head:N", scale=alt.Scale(domain=list(head_names), range=dashes), legend=legend
        ),
    )
    # A single step makes no line.
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


def _value_range(histories: Sequence[Float[np.ndarray, "step head"]]) -> list[float]:
    """Return the range from 0, or the lowest value if negative, to slightly above the highest."""
    values = np.concatenate([part.ravel() for part in histories])
    values = values[np.isfinite(values)]
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    return [low, 1.04 * high or 1.0]
