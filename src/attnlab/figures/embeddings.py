"""The vectors of a vocabulary in two dimensions."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
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
    low, high = places.min(axis=0), places.max(axis=0)
    unit = float(((high - low) / (FRAME - 2 * MARGIN)).max()) or 1.0
    down = np.array([unit, -unit])
    corner = (low + high - FRAME * down) / 2
    names = dict(_names(tokens, (places - corner) / down))
    data = [
        {"token": token, "x": x, "y": y}
        for token, (x, y) in zip(tokens, places.round(6).tolist(), strict=True)
    ]
    for at, (align, anchor) in names.items():
        x, y = (corner + anchor * down).round(6).tolist()
        data[at] |= {"align": align, "name_x": x, "name_y": y}
    frame = np.sort([corner, corner + FRAME * down], axis=0)

    def axis(channel: type, field: str, which: int) -> Any:
        said = f"{('first', 'second')[which]} component ({shares[which]:.0%} of the variance)"
        scale = alt.Scale(domain=frame[:, which].tolist(), nice=False, zero=False)
        return channel(f"{field}:Q", title=said, scale=scale, axis=alt.Axis(tickCount=6))

    base = alt.Chart(alt.InlineData(values=data, name="tokens")).encode(tooltip=["token:N"])
    points = base.mark_circle(size=24, opacity=0.9, color=VARIANTS[0]).encode(
        axis(alt.X, "x", 0), axis(alt.Y, "y", 1)
    )
    texts = [
        base.transform_filter(f"datum.align === '{align}'")
        .mark_text(align=align, baseline="middle", fontSize=LETTERS)
        .encode(axis(alt.X, "name_x", 0), axis(alt.Y, "name_y", 1), text="token:N")
        for align in ("left", "right", "center")
    ]
    left_out = f"{len(names)} of {len(tokens)} tokens have room for their name"
    width, height = FRAME.tolist()
    return themed(
        alt.layer(points, *texts).properties(
            width=width,
            height=height,
            title=alt.TitleParams(
                title,
                subtitle=left_out if len(names) < len(tokens) else "",
                fontSize=13,
                offset=10,
            ),
            description=f"{len(tokens)} token vectors on their first two principal components",
        )
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
