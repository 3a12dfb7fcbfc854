"""A map of weights in a terminal: in characters of five shades, or in colours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.style import Style
from rich.text import Text

from attnlab.figures.base import visible_text

SHADES = " ░▒▓█"
LIGHT, DARK = np.array([240, 245, 250]), np.array([8, 48, 107])
"""The colours of 0 and of 1."""
WIDE, NARROW = 5, 2
"""Columns of a key with its weight in digits, and without digits."""
EVERY = 5
"""Distance of the key numbers in the header, in narrow keys."""


class TerminalMap(NamedTuple):
    """A map in characters."""

    lines: list[Text]
    summary: str
    """A sentence on the part that is shown; empty if all is shown."""
    rows: range
    """The queries that are shown."""


def draw_terminal_map(
    weights: Float[np.ndarray, "query key"],
    queries: Sequence[str],
    keys: Sequence[str],
    query_at: int,
    width: int,
    *,
    most_rows: int | None = None,
    square: bool = True,
    coloured: bool = False,
) -> TerminalMap:
    """Draw queries down and keys across, in at most `width` columns, which must be 16 or more.

    If a map does not fit, the part around the query `query_at` is shown, which is marked; if that
    part lacks the query's largest key, the keys are those around the largest one. In a map that is
    not `square`, keys are not the queries, so they are named below if they have no room above.
    A weight of exactly 0 has no digits, and a weight below 1/64 no shade.
    """
    rows = positions_around(len(queries), query_at, most_rows or len(queries))
    num_digits = len(str(rows[-1]))
    row_labels = {row: f"{row:>{num_digits}} {printable_token(queries[row])}" for row in rows}
    label_width = min(2 + max(map(cell_len, row_labels.values())), max(8, width // 4))
    map_width = width - label_width
    cell_width = WIDE if len(keys) * WIDE <= map_width else NARROW
    columns = positions_around(len(keys), query_at, map_width // cell_width)
    largest_key = int(weights[query_at].argmax())
    shows_largest = square and largest_key in columns
    if not shows_largest:
        columns = positions_around(len(keys), largest_key, map_width // cell_width)
    lines = _build_header(keys, columns, label_width, cell_width)
    for row in rows:
        mark = ">" if row == query_at else " "
        line = Text(set_cell_size(f"{mark}{row_labels[row]}", label_width - 1) + " ")
        for column in columns:
            line.append_text(_draw_cell(float(weights[row, column]), cell_width, coloured))
        line.rstrip()
        lines.append(line)
    if cell_width == NARROW and not square:
        lines.append(
            Text("keys: " + ", ".join(f"{key} {printable_token(keys[key])}" for key in columns))
        )
    return TerminalMap(
        lines,
        _describe_visible_part(
            columns, rows, keys, queries, query_at, None if shows_largest else largest_key
        ),
        rows,
    )


def positions_around(size: int, center: int, max_positions: int) -> range:
    """Return `max_positions` of `size` positions, three quarters of them before `center`."""
    max_positions = min(size, max(1, max_positions))
    start = min(max(0, center - max_positions + 1 + max_positions // 4), size - max_positions)
    return range(start, start + max_positions)


def shade_character(weight: int | float) -> str:
    """Return the character of a weight, by its square root, so that small weights differ."""
    return SHADES[min(4, round(4 * weight**0.5))]


def weight_colour(weight: int | float) -> Color:
    """Return the colour of a weight, by its square root."""
    return Color.from_rgb(*(LIGHT + (DARK - LIGHT) * min(1.0, weight) ** 0.5))


def weight_digits(weight: int | float) -> str:
    """Return a weight between 0 and 1 in three characters."""
    return f"{weight:.2f}"[1:] if weight < 0.995 else "1.0"


def printable_token(token: str) -> str:
    """Return a token with visible white space and escaped control characters."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in visible_text(token)
    )


def fit_label(token: str, width: int) -> str:
    """Return a token in exactly `width` columns."""
    return set_cell_size(printable_token(token), width)


def _build_header(
    keys: Sequence[str], columns: range, label_width: int, cell_width: int
) -> list[Text]:
    """Return the lines above a map: the positions of keys, and their names if cells are wide."""
    if cell_width == WIDE:
        numbers = "".join(f"{key:>{WIDE - 1}} " for key in columns)
        key_names = "".join(" " + fit_label(keys[key], WIDE - 1) for key in columns)
        return [
            Text(" " * label_width + line.rstrip(), style="bold") for line in (numbers, key_names)
        ]
    line = " " * label_width
    for column_index, key in enumerate(columns):
        # A long number in the last columns could exceed the width.
        if key % EVERY == 0 and len(str(key)) <= NARROW * (len(columns) - column_index):
            line = line.ljust(label_width + NARROW * column_index) + str(key)
    return [Text(line, style="bold")]


def _draw_cell(weight: float, cell_width: int, coloured: bool) -> Text:
    cell_text = weight_digits(weight) if weight else "   "
    if not coloured:
        character = shade_character(weight)
        return Text(f" {character}{cell_text}" if cell_width == WIDE else character * NARROW)
    ink = "white" if weight**0.5 > 0.5 else "black"
    style = Style(color=ink, bgcolor=weight_colour(weight).name)
    return Text(f" {cell_text} " if cell_width == WIDE else " " * NARROW, style=style)


def _describe_visible_part(
    columns: range,
    rows: range,
    keys: Sequence[str],
    queries: Sequence[str],
    query_at: int,
    largest_key: int | None,
) -> str:
    """Return a sentence on which queries and keys are shown; empty if all are."""
    ranges = []
    for axis_name, indices, tokens in (("keys", columns, keys), ("queries", rows, queries)):
        if len(indices) < len(tokens):
            ranges.append(f"{axis_name} {indices[0]} to {indices[-1]} of {len(tokens)}")
    if not ranges:
        return ""
    center = f"the query at {query_at}"
    if largest_key is not None and len(columns) < len(keys):
        center += f" and its largest key at {largest_key}"
    return f"Shown are {' and '.join(ranges)}, around {center}; a picture (-o) has all."
