"""A panel of a comparison as the cells of a table, for the terminal and the page."""

import re
from collections.abc import Sequence
from math import floor, log10
from typing import NamedTuple

from attnlab.analysis.arms import describe_keys, format_value, short_keys
from attnlab.analysis.compare import Panel
from attnlab.analysis.statistics import ENOUGH_SEEDS, Difference, Interval, describe_method


class TableCell(NamedTuple):
    """The text of a cell, and the interval that follows it."""

    text: str
    interval: str = ""

    def joined(self, between: str = " ") -> str:
        """Return the text and the interval, with a separator between."""
        return between.join(filter(None, self))


class Column(NamedTuple):
    """A column with a cell for each group."""

    header: str
    cells: Sequence[TableCell]
    is_key: bool = False
    """Whether it shows a config key of the groups, and no measurement."""
    is_count: bool = False
    """Whether its numbers are aligned to the right."""


def comparison_columns(panel: Panel) -> list[Column]:
    """Return a panel as columns; a key with the same value in every row is left to the title."""
    differences = {id(group): difference for group, difference in panel.differences}
    headers = short_keys(_varying_keys(panel))
    table_columns = [
        Column(
            headers[key],
            [TableCell(format_value(group.keys[key])) for group in panel.groups],
            is_key=True,
        )
        for key in _varying_keys(panel)
    ]
    table_columns.append(
        Column("n", [TableCell(str(len(g.seeds))) for g in panel.groups], is_count=True)
    )
    metric_cells = [interval_cell(group.over_seeds(panel.metric)) for group in panel.groups]
    table_columns.append(Column(panel.metric.rpartition("/")[2], metric_cells))
    if differences:
        baseline_cell = {id(panel.baseline): TableCell("baseline")}
        group_differences = [differences.get(id(group)) for group in panel.groups]
        table_columns.append(
            Column(
                "difference",
                [
                    interval_cell(d, "+") if d else baseline_cell.get(id(g), TableCell("-"))
                    for g, d in zip(panel.groups, group_differences, strict=True)
                ],
            )
        )
        p_values = [TableCell(_format_p(d.p) if d else "") for d in group_differences]
        table_columns.append(Column("p", p_values, is_count=True))
    size_cells = [TableCell(format_count(group.mean("parameters"))) for group in panel.groups]
    return [*table_columns, Column("size", size_cells, is_count=True)]


def letter_arms(table_columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """Return the columns with a letter for each arm in place of its keys, and what each stands for.

    For where there is no room for the keys.
    """
    keys = [column for column in table_columns if column.is_key]
    num_rows = len(table_columns[0].cells)
    letters = [_letters(row) for row in range(num_rows)]
    width = max(map(len, letters))
    lines = [
        f"{letter:<{width}}  "
        + ", ".join(f"{column.header}={column.cells[row].text}" for column in keys)
        for row, letter in enumerate(letters)
    ]
    arm_column = Column("arm", [TableCell(letter) for letter in letters], is_key=True)
    return [arm_column, *(column for column in table_columns if not column.is_key)], lines


def panel_title(panel: Panel) -> str:
    """Return the title of a panel, with the keys that have the same value in all of its rows."""
    direction = "higher is better" if panel.higher_is_better else "lower is better"
    keys = _varying_keys(panel)
    common_values = {key: panel.groups[0].keys[key] for key in panel.columns if key not in keys}
    where = describe_keys({**panel.panel_keys, **common_values})
    return f"{panel.dataset}{where and ' at '}{where}: {panel.metric} ({direction})"


def panel_legend(panel: Panel) -> str:
    """Return a sentence on the meaning of the numbers."""
    method = describe_method(panel.groups[0].bounds(panel.metric))
    most_seeds = max(len(group.seeds) for group in panel.groups)
    sentences = [f"mean over n seeds [{method}]"]
    if most_seeds < ENOUGH_SEEDS:
        sentences = [f"mean over n seeds; an interval needs {ENOUGH_SEEDS}"]
    if panel.differences:
        sentences.append("difference to the baseline, paired by seed")
    if tested := sum(difference.p is not None for _, difference in panel.differences):
        sentences.append(f"p of the paired t-test, Holm-corrected for {tested} of them")
    return "; ".join(sentences)


def interval_cell(value: Interval | Difference, sign: str = "") -> TableCell:
    """Return `.998 [.995, 1.000]`, with two significant digits of the interval's width.

    There are more digits where a bound would otherwise read as the mean or as 0. An interval
    without a width has four decimals, or none where the mean is whole. Where there is no interval,
    the number of values stands in its place: `.998 n=2`.
    """
    if value.mean is None:
        return TableCell("no shared seed")
    if value.low is None or value.high is None:
        return TableCell(format_number(value.mean, 4, sign), f"n={value.n}")
    width = value.high - value.low
    decimals_without_width = 0 if value.mean == round(value.mean) else 4
    decimals = min(5, max(0, 1 - floor(log10(width)))) if width else decimals_without_width
    most_decimals = min(5, decimals + 2) if width else decimals
    while decimals < most_decimals and _is_too_short(value.mean, value.low, value.high, decimals):
        decimals += 1
    low, high = format_number(value.low, decimals), format_number(value.high, decimals)
    return TableCell(format_number(value.mean, decimals, sign), f"[{low}, {high}]")


def _is_too_short(mean: float, low: float, high: float, decimals: int) -> bool:
    """Return whether so few decimals make a bound equal to the mean, or to 0 where it is not."""
    bounds = {format_number(bound, decimals) for bound in (low, high)}
    zero = format_number(0.0, decimals)
    return format_number(mean, decimals) in bounds or (zero in bounds and low * high > 0)


def format_number(value: float, decimals: int, sign: str = "") -> str:
    """Return a number without the zero before its decimal point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{decimals}f}")


def format_count(amount: int | float) -> str:
    """Return a large number with three digits and a unit."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount:.0f}"


def _letters(format_number: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    before, last = divmod(format_number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def _varying_keys(panel: Panel) -> list[str]:
    keys = [
        key for key in panel.columns if len({format_value(g.keys[key]) for g in panel.groups}) > 1
    ]
    return keys or list(panel.columns)


def _format_p(p: float | None) -> str:
    if p is None:
        return "-"
    return "0" if p == 0 else "<.001" if p < 0.001 else format_number(p, 3)
