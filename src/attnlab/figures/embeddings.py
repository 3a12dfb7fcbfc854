"""The vectors of a vocabulary in two dimensions, at one step or over training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float

from attnlab.figures.base import VARIANTS, themed

FRAME = np.array([720.0, 600.0])
"""Pixels of the frame, to the right and down."""
MARGIN = 24
"""Pixels between the outermost points and the frame."""
LETTERS, WIDTH, HEIGHT = 10, 5.6, 11.0
"""The size of a name's letters, and the pixels that a letter and a line take on average."""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><script>{library}</script></head>
<body><div id="figure"></div>
<script>vegaEmbed("#figure", {figure}, {{actions: false, renderer: "svg"}});</script></body>
</html>
"""


def plane(
    tokens: Sequence[str],
    places: Float[np.ndarray, "token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw each token as a point; `shares` is what each axis shows of the variance.

    Both axes have one scale, so that distances can be compared. Names stand where they hide neither
    a point nor a name, those of earlier tokens first; a page names what is pointed at.
    """
    corner, down = _frame(places)
    names = dict(_names(tokens, (places - corner) / down))
    data = [
        {"token": token, "x": x, "y": y}
        for token, (x, y) in zip(tokens, places.round(6).tolist(), strict=True)
    ]
    for at, (align, anchor) in names.items():
        x, y = (corner + anchor * down).round(6).tolist()
        data[at] |= {"align": align, "name_x": x, "name_y": y}
    x, y = _axes(corner, down, shares)
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(tooltip=["token:N"])
    points = base.mark_circle(size=24, opacity=0.9, color=VARIANTS[0]).encode(x("x"), y("y"))
    return _finished(
        alt.layer(points, *_texts(base, x, y)),
        title,
        f"{len(tokens)} token vectors on their first two principal components",
        _left_out(names, tokens),
    )


def paths(
    tokens: Sequence[str],
    steps: Sequence[int],
    places: Float[np.ndarray, "step token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw the way of each token over training, darker with time, from a ring to a point.

    `shares` is what each axis shows of the variance at the last step. Names are those of `plane`,
    at the points. Raises ValueError where steps and places differ in number.
    """
    corner, down = _frame(places)
    data, names = _moving(tokens, steps, places, corner, down)
    x, y = _axes(corner, down, shares, "of the variance at the last step")
    final = f"datum.at === {len(steps) - 1}"
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(
        tooltip=["token:N", "step:Q"]
    )
    # A line of one opacity for each stretch: a path itself has only one.
    stretches = (
        base.transform_filter("isValid(datum.next_x)")
        .mark_rule(strokeWidth=1.2, strokeCap="round", color=VARIANTS[0])
        .encode(
            *(x("x"), y("y"), alt.X2("next_x:Q"), alt.Y2("next_y:Q")),
            opacity=alt.Opacity(
                "at:Q",
                scale=alt.Scale(domain=[0, max(1, len(steps) - 1)], range=[0.12, 0.7]),
                legend=None,
            ),
        )
    )
    starts = (
        base.transform_filter(f"datum.at === 0 && !({final})")
        .mark_point(size=14, strokeWidth=1, opacity=0.4, color=VARIANTS[0])
        .encode(x("x"), y("y"))
    )
    ends = (
        base.transform_filter(final)
        .mark_circle(size=24, opacity=0.9, color=VARIANTS[0])
        .encode(x("x"), y("y"))
    )
    return _finished(
        alt.layer(stretches, starts, ends, *_texts(base.transform_filter(final), x, y)),
        title,
        f"{len(tokens)} token vectors over training, on two principal components of the last step",
        f"from step {steps[0]} (rings) to step {steps[-1]} (points)",
        _left_out(names, tokens),
    )


def film(
    tokens: Sequence[str],
    steps: Sequence[int],
    places: Float[np.ndarray, "step token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw each token as a point that a slider moves through training, for `page`.

    The slider counts recorded steps, however far apart they are; the step itself stands above. It
    begins at the last one, on which names are placed. Raises ValueError as `paths` does.
    """
    corner, down = _frame(places)
    data, names = _moving(tokens, steps, places, corner, down)
    x, y = _axes(corner, down, shares, "of the variance at the last step")
    last = len(steps) - 1
    slider = alt.binding_range(min=0, max=last, step=1, name="recorded step ")
    at = alt.param(name="at", value=last, bind=slider)
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(tooltip=["token:N"])
    moving = base.transform_filter("datum.at === at")
    points = moving.mark_circle(size=24, opacity=0.9, color=VARIANTS[0]).encode(
        x("x"), y("y"), key="token:N"
    )
    shown = (
        alt.Chart(alt.InlineData(values=[{"at": n, "step": f"step {s}"} for n, s in _count(steps)]))
        .transform_filter("datum.at === at")
        .mark_text(align="right", baseline="top", fontSize=13, fontWeight=600)
        .encode(x=alt.value(FRAME[0] - 4), y=alt.value(4), text="step:N")
    )
    return _finished(
        alt.layer(points, *_texts(moving, x, y), shown).add_params(at),
        title,
        f"{len(tokens)} token vectors over training, on two principal components of the last step",
        _left_out(names, tokens),
    )


def page(figure: Any, title: str) -> str:
    """Write a figure as an HTML file that needs nothing else."""
    from vl_convert import javascript_bundle

    return PAGE.format(
        title=title,
        # Its stub asks for an argument that has a default.
        library=javascript_bundle(),  # pyright: ignore[reportCallIssue]
        # No token may end the script that it stands in.
        figure=json.dumps(figure.to_dict()).replace("<", "\\u003c"),
    )


def _frame(
    places: Float[np.ndarray, "*step token 2"],
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Give the place of the upper left corner, and what a pixel to the right and down is."""
    flat = rearrange(places, "... xy -> (...) xy")
    low, high = flat.min(axis=0), flat.max(axis=0)
    unit = float(((high - low) / (FRAME - 2 * MARGIN)).max()) or 1.0
    down = np.array([unit, -unit])
    return (low + high - FRAME * down) / 2, down


def _axes(
    corner: Float[np.ndarray, "2"],
    down: Float[np.ndarray, "2"],
    shares: Sequence[float],
    whole: str = "of the variance",
) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """Give what encodes a field to the right, and one upwards."""
    frame = np.sort([corner, corner + FRAME * down], axis=0)

    def axis(channel: type, which: int) -> Callable[[str], Any]:
        said = f"{('first', 'second')[which]} component ({shares[which]:.0%} {whole})"
        scale = alt.Scale(domain=frame[:, which].tolist(), nice=False, zero=False)
        return lambda field: channel(
            f"{field}:Q", title=said, scale=scale, axis=alt.Axis(tickCount=6)
        )

    return axis(alt.X, 0), axis(alt.Y, 1)


def _moving(
    tokens: Sequence[str],
    steps: Sequence[int],
    places: Float[np.ndarray, "step token 2"],
    corner: Float[np.ndarray, "2"],
    down: Float[np.ndarray, "2"],
) -> tuple[list[dict[str, Any]], Mapping[int, Any]]:
    """Write a row for each token at each step, and say which have a name."""
    if len(steps) != len(places) or not len(steps):
        raise ValueError(f"{len(places)} places over training need as many steps, at least one")
    names = dict(_names(tokens, (places[-1] - corner) / down))
    data = []
    for at, step in _count(steps):
        for number, token in enumerate(tokens):
            x, y = places[at, number].round(6).tolist()
            row = {"token": token, "step": step, "at": at, "x": x, "y": y}
            if at + 1 < len(steps):
                row["next_x"], row["next_y"] = places[at + 1, number].round(6).tolist()
            if number in names:
                align, anchor = names[number]
                beside = corner + anchor * down - places[-1, number]
                name_x, name_y = (places[at, number] + beside).round(6).tolist()
                row |= {"align": align, "name_x": name_x, "name_y": name_y}
            data.append(row)
    return data, names


def _count(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    return enumerate(map(int, steps))


def _texts(base: Any, x: Callable[[str], Any], y: Callable[[str], Any]) -> list[Any]:
    return [
        base.transform_filter(f"datum.align === '{align}'")
        .mark_text(align=align, baseline="middle", fontSize=LETTERS)
        .encode(x("name_x"), y("name_y"), text="token:N")
        for align in ("left", "right", "center")
    ]


def _left_out(names: Mapping[int, Any], tokens: Sequence[str]) -> str:
    if len(names) == len(tokens):
        return ""
    return f"{len(names)} of {len(tokens)} tokens have room for their name"


def _finished(chart: Any, title: str, description: str, *below: str) -> Any:
    width, height = FRAME.tolist()
    subtitle = "; ".join(filter(None, below))
    heading = alt.TitleParams(title, subtitle=subtitle, fontSize=13, offset=10)
    return themed(
        chart.properties(width=width, height=height, title=heading, description=description)
    )


def _names(
    tokens: Sequence[str], pixels: Float[np.ndarray, "token 2"]
) -> Iterator[tuple[int, tuple[str, Float[np.ndarray, "2"]]]]:
    """Give alignment and anchor of each name that has room beside, above or below its point."""
    taken = np.concatenate([pixels - 2.5, pixels + 2.5], axis=1)
    for at, (token, point) in enumerate(zip(tokens, pixels, strict=True)):
        width = WIDTH * len(token) + 2
        sides = [("left", 5, 0, 0), ("right", -5, 0, width)]
        sides += [("center", 0, shift, width / 2) for shift in (-9, 9)]
        for align, right, lower, before in sides:
            anchor = point + np.array([right, lower])
            corner = anchor - np.array([before, HEIGHT / 2])
            box = np.concatenate([corner, corner + np.array([width, HEIGHT])])
            within = (box[:2] >= 0).all() and (box[2:] <= FRAME).all()
            if within and not _overlap(box, taken).any():
                taken = np.concatenate([taken, box[None]])
                yield at, (align, anchor)
                break


def _overlap(
    box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "box 4"]
) -> Bool[np.ndarray, " box"]:
    start, end = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.all(start < end, axis=1)
