"""All attention maps of a model in one image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 96
"""The least pixels of the shorter side of a map, unless the longer side exceeds `LONGEST`."""
LONGEST = 384
"""The most pixels of the longer side after enlargement."""
LINE = 2
"""Pixels between two maps."""
GREY = 64
"""Brightness of the background."""


def draw_pattern_grid(
    patterns: Sequence[Float[np.ndarray, "_head _query _key"]],
) -> UInt8[np.ndarray, "height width"]:
    """Draw each layer as a row and each head as a column; a weight of 0 is black, of 1 white.

    Raises ValueError for weights outside [0, 1], and for no map.
    """
    if not any(layer.size for layer in patterns):
        raise ValueError("there is no attention map to draw")
    rows = [[_enlarge(weights) for weights in layer] for layer in patterns]
    maps = [pixels for row in rows for pixels in row]
    cell_height = max(pixels.shape[0] for pixels in maps) + LINE
    cell_width = max(pixels.shape[1] for pixels in maps) + LINE
    num_columns = max(len(row) for row in rows)
    picture = np.full(
        (len(rows) * cell_height - LINE, num_columns * cell_width - LINE), GREY, np.uint8
    )
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            x, y = j * cell_width, i * cell_height
            picture[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return picture


def _enlarge(weights: Float[np.ndarray, "query key"]) -> UInt8[np.ndarray, "height width"]:
    """Return a map as grey pixels, each cell repeated so that the map is large enough to see."""
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(
            f"attention weights lie in [0, 1]; these from {weights.min()} to {weights.max()}"
        )
    pixels = np.rint(np.multiply(weights, 255, dtype=np.float64)).astype(np.uint8)
    factor = max(1, min(-(-SIDE // min(pixels.shape)), LONGEST // max(pixels.shape)))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
