"""A panel of a comparison as the cells of a table, for the terminal and the page."""

import re
from collections.abc import Sequence
from math import floor, log10
from typing import NamedTuple

from attnlab.analysis.arms import describe_keys, format_value
from attnlab.analysis.compare import Panel
from attnlab.analysis.statistics import ENOUGH_SEEDS, Difference, Interval, describe_method
from attnlab.run_record.choice_name import shortest_endings


class TableCell(NamedTuple):
    """The text of a cell, and the interval that follows it."""

    text: str
    interval: str = ""

    def to_text(self, separator: str = " ") -> str:
        """Return the text and the interval, with a separator between."""
        return separator.join(filter(None, self))


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
    difference_by_group = {id(group): difference for group, difference in panel.differences}
    header_by_key = shortest_endings(_varying_keys(panel))
    table_columns = [
        Column(
            header,
            [TableCell(format_value(group.keys[key])) for group in panel.groups],
            is_key=True,
        )
        for key, header in header_by_key.items()
    ]
    table_columns.append(
        Column("n", [TableCell(str(len(g.seeds))) for g in panel.groups], is_count=True)
    )
    metric_cells = [interval_cell(group.over_seeds(panel.metric)) for group in panel.groups]
    table_columns.append(Column(panel.metric.rpartition("/")[2], metric_cells))
    if difference_by_group:
        differences = [difference_by_group.get(id(group)) for group in panel.groups]
        difference_cells = [
            interval_cell(difference, "+")
            if difference
            else TableCell("baseline" if group is panel.baseline else "-")
            for group, difference in zip(panel.groups, differences, strict=True)
        ]
        p_cells = [TableCell(_format_p(d.p) if d else "") for d in differences]
        table_columns.append(Column("difference", difference_cells))
        table_columns.append(Column("p", p_cells, is_count=True))
    size_cells = [TableCell(format_count(group.mean("parameters"))) for group in panel.groups]
    return [*table_columns, Column("size", size_cells, is_count=True)]


def letter_arms(table_columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """Return the columns with a letter for each arm in place of its keys, and what each stands for.

    For where there is no room for the keys.
    """
    key_columns = [column for column in table_columns if column.is_key]
    other_columns = [column for column in table_columns if not column.is_key]
    num_rows = len(table_columns[0].cells)
    row_letters = [_row_letters(row) for row in range(num_rows)]
    width = max(map(len, row_letters))
    legend_lines = [
        f"{letters:<{width}}  "
        + ", ".join(f"{column.header}={column.cells[row].text}" for column in key_columns)
        for row, letters in enumerate(row_letters)
    ]
    arm_column = Column("arm", [TableCell(letters) for letters in row_letters], is_key=True)
    return [arm_column, *other_columns], legend_lines


def panel_title(panel: Panel) -> str:
    """Return the title of a panel, with the keys that have the same value in all of its rows."""
    direction = "higher is better" if panel.higher_is_better else "lower is better"
    varying_keys = _varying_keys(panel)
    common_values = {
        key: panel.groups[0].keys[key] for key in panel.group_keys if key not in varying_keys
    }
    common_text = describe_keys({**panel.panel_keys, **common_values})
    return f"{panel.dataset}{common_text and ' at '}{common_text}: {panel.metric} ({direction})"


def panel_legend(panel: Panel) -> str:
    """Return a sentence on the meaning of the numbers."""
    method = describe_method(panel.groups[0].bounds(panel.metric))
    most_seeds = max(len(group.seeds) for group in panel.groups)
    sentences = [f"mean over n seeds [{method}]"]
    if most_seeds < ENOUGH_SEEDS:
        sentences = [f"mean over n seeds; an interval needs {ENOUGH_SEEDS}"]
    if panel.differences:
        sentences.append("difference to the baseline, paired by seed")
    num_tests = sum(difference.p is not None for _, difference in panel.differences)
    if num_tests == 1:
        sentences.append("p of the paired t-test")
    elif num_tests:
        sentences.append(f"p of the paired t-test, Holm-corrected for {num_tests} comparisons")
        sentences.append("intervals are not corrected")
    sentences += _split_sentences(panel.metric)
    return "; ".join(sentences)


def _split_sentences(metric: str) -> list[str]:
    """Return what a reader must know of the split that a metric was measured on."""
    split = metric.partition("/")[0]
    if split == "validation":
        return ["validation: for choosing settings; results are reported on test"]
    if split == "test" or split.startswith("test_"):
        return [f"{split}: held out, measured once at the end; settings are chosen on validation"]
    return []


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
    while decimals < most_decimals and _has_too_few_decimals(
        value.mean, value.low, value.high, decimals
    ):
        decimals += 1
    low, high = format_number(value.low, decimals), format_number(value.high, decimals)
    return TableCell(format_number(value.mean, decimals, sign), f"[{low}, {high}]")


def _has_too_few_decimals(mean: float, low: float, high: float, decimals: int) -> bool:
    """Return whether so few decimals make a bound equal to the mean, or to 0 where it is not."""
    bound_texts = {format_number(bound, decimals) for bound in (low, high)}
    zero_text = format_number(0.0, decimals)
    return format_number(mean, decimals) in bound_texts or (
        zero_text in bound_texts and low * high > 0
    )


def format_number(value: float, decimals: int, sign: str = "") -> str:
    """Return a number without the zero before its decimal point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{decimals}f}")


def format_count(amount: int | float) -> str:
    """Return a large number with three digits and a unit."""
    for unit_size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if amount >= unit_size:
            return f"{amount / unit_size:.3g}{unit}"
    return f"{amount:.0f}"


def _row_letters(row: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for the rows 0, 1, ..."""
    quotient, remainder = divmod(row, 26)
    return (_row_letters(quotient - 1) if quotient else "") + chr(ord("A") + remainder)


def _varying_keys(panel: Panel) -> list[str]:
    """Return the keys whose values differ between the groups; all keys where none does."""
    varying_keys = [
        key
        for key in panel.group_keys
        if len({format_value(g.keys[key]) for g in panel.groups}) > 1
    ]
    return varying_keys or list(panel.group_keys)


def _format_p(p: float | None) -> str:
    if p is None:
        return "-"
    return "0" if p == 0 else "<.001" if p < 0.001 else format_number(p, 3)
