"""The token vectors of a vocabulary in two dimensions, at one step or over training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float

from attnlab.figures.base import VARIANTS, apply_theme

FRAME = np.array([720.0, 600.0])
"""Pixels of the frame: width and height."""
MARGIN = 24
"""Pixels between the outermost points and the frame."""
LETTERS, WIDTH, HEIGHT = 10, 5.6, 11.0
"""The font size of names, and the average pixels of a letter's width and a line's height."""


def draw_plane(
    tokens: Sequence[str],
    coordinates: Float[np.ndarray, "token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw each token as a point; `shares` are the shares of variance along each axis.

    Both axes have one scale, so that distances can be compared. Names are placed where they hide
    neither a point nor a name, those of earlier tokens first; on a page, a tooltip has the token.
    """
    corner, pixel = _fit_frame(coordinates)
    placed_names = dict(_place_names(tokens, (coordinates - corner) / pixel))
    data = [
        {"token": token, "x": x, "y": y}
        for token, (x, y) in zip(tokens, coordinates.round(6).tolist(), strict=True)
    ]
    for index, (align, anchor) in placed_names.items():
        name_x, name_y = (corner + anchor * pixel).round(6).tolist()
        data[index] |= {"align": align, "name_x": name_x, "name_y": name_y}
    encode_x, encode_y = _build_encoders(corner, pixel, shares)
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(tooltip=["token:N"])
    points = base.mark_circle(size=24, opacity=0.9, color=VARIANTS[0]).encode(
        encode_x("x"), encode_y("y")
    )
    return _add_titles(
        alt.layer(points, *_draw_names(base, encode_x, encode_y)),
        title,
        f"{len(tokens)} token vectors on their first two principal components",
        _describe_named_count(placed_names, tokens),
    )


def draw_paths(
    tokens: Sequence[str],
    steps: Sequence[int],
    coordinates: Float[np.ndarray, "step token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw the path of each token over training, darker with time, from a ring to a point.

    `shares` are the shares of variance along each axis at the last step. Names are those of
    `draw_plane`, at the points. Raises ValueError where steps and coordinates differ in number.
    """
    corner, pixel = _fit_frame(coordinates)
    data, placed_names = _rows_over_steps(tokens, steps, coordinates, corner, pixel)
    encode_x, encode_y = _build_encoders(corner, pixel, shares, "of the variance at the last step")
    is_last_step = f"datum.at === {len(steps) - 1}"
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(
        tooltip=["token:N", "step:Q"]
    )
    # Each segment is a line of its own, since a path has only one opacity.
    segments = (
        base.transform_filter("isValid(datum.next_x)")
        .mark_rule(strokeWidth=1.2, strokeCap="round", color=VARIANTS[0])
        .encode(
            *(encode_x("x"), encode_y("y"), alt.X2("next_x:Q"), alt.Y2("next_y:Q")),
            opacity=alt.Opacity(
                "at:Q",
                scale=alt.Scale(domain=[0, max(1, len(steps) - 1)], range=[0.12, 0.7]),
                legend=None,
            ),
        )
    )
    starts = (
        base.transform_filter(f"datum.at === 0 && !({is_last_step})")
        .mark_point(size=14, strokeWidth=1, opacity=0.4, color=VARIANTS[0])
        .encode(encode_x("x"), encode_y("y"))
    )
    ends = (
        base.transform_filter(is_last_step)
        .mark_circle(size=24, opacity=0.9, color=VARIANTS[0])
        .encode(encode_x("x"), encode_y("y"))
    )
    return _add_titles(
        alt.layer(
            segments,
            starts,
            ends,
            *_draw_names(base.transform_filter(is_last_step), encode_x, encode_y),
        ),
        title,
        f"{len(tokens)} token vectors over training, on two principal components of the last step",
        f"from step {steps[0]} (rings) to step {steps[-1]} (points)",
        _describe_named_count(placed_names, tokens),
    )


def draw_animated_plane(
    tokens: Sequence[str],
    steps: Sequence[int],
    coordinates: Float[np.ndarray, "step token 2"],
    shares: Sequence[float],
    title: str,
) -> Any:
    """Draw each token as a point that a slider moves through training, for `figure_page`.

    The slider counts recorded steps, whatever their distance; the figure shows the step itself. It
    begins at the last one, for which names are placed. Raises ValueError as `draw_paths` does.
    """
    corner, pixel = _fit_frame(coordinates)
    data, placed_names = _rows_over_steps(tokens, steps, coordinates, corner, pixel)
    encode_x, encode_y = _build_encoders(corner, pixel, shares, "of the variance at the last step")
    last = len(steps) - 1
    slider = alt.binding_range(min=0, max=last, step=1, name="recorded step ")
    step_index = alt.param(name="at", value=last, bind=slider)
    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(tooltip=["token:N"])
    at_step = base.transform_filter("datum.at === at")
    points = at_step.mark_circle(size=24, opacity=0.9, color=VARIANTS[0]).encode(
        encode_x("x"), encode_y("y"), key="token:N"
    )
    labels = [{"at": index, "step": f"step {step}"} for index, step in _enumerate_steps(steps)]
    step_label = (
        alt.Chart(alt.InlineData(values=labels))
        .transform_filter("datum.at === at")
        .mark_text(align="right", baseline="top", fontSize=13, fontWeight=600)
        .encode(x=alt.value(FRAME[0] - 4), y=alt.value(4), text="step:N")
    )
    return _add_titles(
        alt.layer(points, *_draw_names(at_step, encode_x, encode_y), step_label).add_params(
            step_index
        ),
        title,
        f"{len(tokens)} token vectors over training, on two principal components of the last step",
        _describe_named_count(placed_names, tokens),
    )


def _fit_frame(
    coordinates: Float[np.ndarray, "*step token 2"],
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Return the upper left corner of the frame, and a pixel (right, down) in data units."""
    flat = rearrange(coordinates, "... xy -> (...) xy")
    low, high = flat.min(axis=0), flat.max(axis=0)
    pixel_size = float(((high - low) / (FRAME - 2 * MARGIN)).max()) or 1.0
    pixel = np.array([pixel_size, -pixel_size])
    return (low + high - FRAME * pixel) / 2, pixel


def _build_encoders(
    corner: Float[np.ndarray, "2"],
    pixel: Float[np.ndarray, "2"],
    shares: Sequence[float],
    share_of: str = "of the variance",
) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """Return the functions that encode a field as x and as y."""
    frame = np.sort([corner, corner + FRAME * pixel], axis=0)

    def build_encoder(channel: type, component: int) -> Callable[[str], Any]:
        axis_title = (
            f"{('first', 'second')[component]} component ({shares[component]:.0%} {share_of})"
        )
        scale = alt.Scale(domain=frame[:, component].tolist(), nice=False, zero=False)
        return lambda field: channel(
            f"{field}:Q", title=axis_title, scale=scale, axis=alt.Axis(tickCount=6)
        )

    return build_encoder(alt.X, 0), build_encoder(alt.Y, 1)


def _rows_over_steps(
    tokens: Sequence[str],
    steps: Sequence[int],
    coordinates: Float[np.ndarray, "step token 2"],
    corner: Float[np.ndarray, "2"],
    pixel: Float[np.ndarray, "2"],
) -> tuple[list[dict[str, Any]], Mapping[int, Any]]:
    """Return a row for each token at each step, and the placed names by token index."""
    if len(steps) != len(coordinates) or not len(steps):
        raise ValueError(
            f"{len(coordinates)} places over training need as many steps, at least one"
        )
    placed_names = dict(_place_names(tokens, (coordinates[-1] - corner) / pixel))
    data = []
    for step_index, step in _enumerate_steps(steps):
        for token_index, token in enumerate(tokens):
            x, y = coordinates[step_index, token_index].round(6).tolist()
            row = {"token": token, "step": step, "at": step_index, "x": x, "y": y}
            if step_index + 1 < len(steps):
                row["next_x"], row["next_y"] = (
                    coordinates[step_index + 1, token_index].round(6).tolist()
                )
            if token_index in placed_names:
                align, anchor = placed_names[token_index]
                name_offset = corner + anchor * pixel - coordinates[-1, token_index]
                name_x, name_y = (
                    (coordinates[step_index, token_index] + name_offset).round(6).tolist()
                )
                row |= {"align": align, "name_x": name_x, "name_y": name_y}
            data.append(row)
    return data, placed_names


def _enumerate_steps(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    return enumerate(map(int, steps))


def _draw_names(
    base: Any, encode_x: Callable[[str], Any], encode_y: Callable[[str], Any]
) -> list[Any]:
    """Draw the names of tokens at their anchors, one chart for each alignment."""
    return [
        base.transform_filter(f"datum.align === '{align}'")
        .mark_text(align=align, baseline="middle", fontSize=LETTERS)
        .encode(encode_x("name_x"), encode_y("name_y"), text="token:N")
        for align in ("left", "right", "center")
    ]


def _describe_named_count(placed_names: Mapping[int, Any], tokens: Sequence[str]) -> str:
    if len(placed_names) == len(tokens):
        return ""
    return f"{len(placed_names)} of {len(tokens)} tokens have room for their name"


def _add_titles(chart: Any, title: str, description: str, *notes: str) -> Any:
    width, height = FRAME.tolist()
    subtitle = "; ".join(filter(None, notes))
    heading = alt.TitleParams(title, subtitle=subtitle, fontSize=13, offset=10)
    return apply_theme(
        chart.properties(width=width, height=height, title=heading, description=description)
    )


def _place_names(
    tokens: Sequence[str], pixels: Float[np.ndarray, "token 2"]
) -> Iterator[tuple[int, tuple[str, Float[np.ndarray, "2"]]]]:
    """Yield alignment and anchor of each name that has room beside, above or below its point."""
    occupied = np.concatenate([pixels - 2.5, pixels + 2.5], axis=1)
    for index, (token, point) in enumerate(zip(tokens, pixels, strict=True)):
        width = WIDTH * len(token) + 2
        placements = [("left", 5, 0, 0), ("right", -5, 0, width)]
        placements += [("center", 0, shift, width / 2) for shift in (-9, 9)]
        for align, shift_right, shift_down, width_before_anchor in placements:
            anchor = point + np.array([shift_right, shift_down])
            corner = anchor - np.array([width_before_anchor, HEIGHT / 2])
            box = np.concatenate([corner, corner + np.array([width, HEIGHT])])
            is_inside = (box[:2] >= 0).all() and (box[2:] <= FRAME).all()
            if is_inside and not _overlaps_box(box, occupied).any():
                occupied = np.concatenate([occupied, box[None]])
                yield index, (align, anchor)
                break


def _overlaps_box(
    box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "box 4"]
) -> Bool[np.ndarray, " box"]:
    """Return which boxes overlap a box; a box is (left, top, right, bottom)."""
    start, end = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.all(start < end, axis=1)
