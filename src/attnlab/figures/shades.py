"""A map of weights in a terminal: one character for each shade, or colour where there is any."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.style import Style
from rich.text import Text

from attnlab.figures.base import visible

SHADES = " ░▒▓█"
LIGHT, DARK = np.array([240, 245, 250]), np.array([8, 48, 107])
"""The colours of 0 and of 1."""
WIDE, NARROW = 5, 2
"""Columns of a key with its weight in digits, and of one without."""
EVERY = 5
"""Narrow keys from one number at the top to the next."""


class Drawn(NamedTuple):
    """A map in characters."""

    lines: list[Text]
    said: str
    """What of it is shown, if it is not all."""
    rows: range
    """The queries that are shown."""


def heat_map(
    weights: Float[np.ndarray, "query key"],
    queries: Sequence[str],
    keys: Sequence[str],
    at: int,
    width: int,
    *,
    most_rows: int | None = None,
    square: bool = True,
    coloured: bool = False,
) -> Drawn:
    """Draw queries down and keys across, in at most `width` columns, which must be 16 or more.

    What does not fit is left out around the query `at`, which is marked; keys around its largest
    one, if that would be left out too. Of a map that is not `square`, keys are not the queries, so
    they are named below where they have no room above. A weight of exactly 0 has no digits, and one
    below 1/64 no shade.
    """
    rows = window(len(queries), at, most_rows or len(queries))
    places = len(str(rows[-1]))
    named = {row: f"{row:>{places}} {name(queries[row])}" for row in rows}
    label = min(2 + max(map(cell_len, named.values())), max(8, width // 4))
    room = width - label
    cell = WIDE if len(keys) * WIDE <= room else NARROW
    columns, largest = window(len(keys), at, room // cell), int(weights[at].argmax())
    own = square and largest in columns
    if not own:
        columns = window(len(keys), largest, room // cell)
    lines = _header(keys, columns, label, cell)
    for row in rows:
        mark = ">" if row == at else " "
        line = Text(set_cell_size(f"{mark}{named[row]}", label - 1) + " ")
        for column in columns:
            line.append_text(_cell(float(weights[row, column]), cell, coloured))
        line.rstrip()
        lines.append(line)
    if cell == NARROW and not square:
        lines.append(Text("keys: " + ", ".join(f"{k} {name(keys[k])}" for k in columns)))
    return Drawn(lines, _said(columns, rows, keys, queries, at, None if own else largest), rows)


def window(size: int, at: int, most: int) -> range:
    """Choose `most` of `size` places around one, of which three quarters stand before it."""
    most = min(size, max(1, most))
    start = min(max(0, at - most + 1 + most // 4), size - most)
    return range(start, start + most)


def shade(weight: int | float) -> str:
    """Give the character of a weight, by its square root, so that small ones can be told apart."""
    return SHADES[min(4, round(4 * weight**0.5))]


def colour(weight: int | float) -> Color:
    """Give the colour of a weight, by its square root."""
    return Color.from_rgb(*(LIGHT + (DARK - LIGHT) * min(1.0, weight) ** 0.5))


def digits(weight: int | float) -> str:
    """Write a weight between 0 and 1 in three characters."""
    return f"{weight:.2f}"[1:] if weight < 0.995 else "1.0"


def name(token: str) -> str:
    """Write a token so that it is seen and moves nothing on the screen."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in visible(token)
    )


def fitted(token: str, width: int) -> str:
    """Write a token in exactly so many columns."""
    return set_cell_size(name(token), width)


def _header(keys: Sequence[str], columns: range, label: int, cell: int) -> list[Text]:
    if cell == WIDE:
        numbers = "".join(f"{key:>{WIDE - 1}} " for key in columns)
        names = "".join(" " + fitted(keys[key], WIDE - 1) for key in columns)
        return [Text(" " * label + line.rstrip(), style="bold") for line in (numbers, names)]
    line = " " * label
    for place, key in enumerate(columns):
        # The last one could stand out over the edge.
        if key % EVERY == 0 and len(str(key)) <= NARROW * (len(columns) - place):
            line = line.ljust(label + NARROW * place) + str(key)
    return [Text(line, style="bold")]


def _cell(weight: float, cell: int, coloured: bool) -> Text:
    number = digits(weight) if weight else "   "
    if not coloured:
        mark = shade(weight)
        return Text(f" {mark}{number}" if cell == WIDE else mark * NARROW)
    ink = "white" if weight**0.5 > 0.5 else "black"
    style = Style(color=ink, bgcolor=colour(weight).name)
    return Text(f" {number} " if cell == WIDE else " " * NARROW, style=style)


def _said(
    columns: range,
    rows: range,
    keys: Sequence[str],
    queries: Sequence[str],
    at: int,
    largest: int | None,
) -> str:
    parts = []
    for what, shown, whole in (("keys", columns, keys), ("queries", rows, queries)):
        if len(shown) < len(whole):
            parts.append(f"{what} {shown[0]} to {shown[-1]} of {len(whole)}")
    if not parts:
        return ""
    moved = largest is not None and len(columns) < len(keys)
    around = f"the query at {at}{f' and its largest key at {largest}' if moved else ''}"
    return f"Shown are {' and '.join(parts)}, around {around}; a picture (-o) has all."
