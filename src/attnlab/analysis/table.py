"""A panel as the cells of a table, for the terminal and the page alike."""

import re
from collections.abc import Sequence
from math import floor, log10
from typing import NamedTuple

from attnlab.analysis.arms import label, shown
from attnlab.analysis.compare import Panel
from attnlab.analysis.statistics import Difference, Interval


class Cell(NamedTuple):
    """What a cell says, and the interval around it."""

    text: str
    interval: str = ""

    def joined(self, between: str = " ") -> str:
        """Write both, with something between."""
        return between.join(filter(None, self))


class Column(NamedTuple):
    """A column, a cell for each group."""

    header: str
    cells: Sequence[Cell]
    is_key: bool = False
    """Whether it says what the groups are, and measures nothing."""
    is_count: bool = False
    """Whether its numbers are to stand flush right."""


def columns(panel: Panel) -> list[Column]:
    """Write a panel as columns; a key that is the same in every row is left to the title."""
    differences = {id(group): difference for group, difference in panel.differences}
    made = [
        Column(key, [Cell(shown(group.keys[key])) for group in panel.groups], is_key=True)
        for key in _keys(panel)
    ]
    made.append(Column("n", [Cell(str(len(g.seeds))) for g in panel.groups], is_count=True))
    measured = [with_interval(group.over_seeds(panel.metric)) for group in panel.groups]
    made.append(Column(panel.metric.rpartition("/")[2], measured))
    if differences:
        at_base = {id(panel.baseline): Cell("baseline")}
        of_groups = [differences.get(id(group)) for group in panel.groups]
        made.append(
            Column(
                "difference",
                [
                    with_interval(d, "+") if d else at_base.get(id(g), Cell("-"))
                    for g, d in zip(panel.groups, of_groups, strict=True)
                ],
            )
        )
        p_values = [Cell(_p_value(d.p) if d else "") for d in of_groups]
        made.append(Column("p", p_values, is_count=True))
    sizes = [Cell(count(group.mean("parameters"))) for group in panel.groups]
    return [*made, Column("size", sizes, is_count=True)]


def title(panel: Panel) -> str:
    """Say what a panel shows, with what is the same in all of its rows."""
    best = "higher is better" if panel.higher_is_better else "lower is better"
    keys = _keys(panel)
    same = {key: panel.groups[0].keys[key] for key in panel.columns if key not in keys}
    where = label({**panel.where, **same})
    return f"{panel.dataset}{where and ' at '}{where}: {panel.metric} ({best})"


def legend(panel: Panel) -> str:
    """Say what the numbers are."""
    said = ["mean over n seeds [95 % t-interval]"]
    if panel.differences:
        said.append("difference to the baseline, paired by seed")
    if tested := sum(difference.p is not None for _, difference in panel.differences):
        said.append(f"p of the paired t-test, Holm-corrected for {tested} of them")
    return "; ".join(said)


def with_interval(value: Interval | Difference, sign: str = "") -> Cell:
    """Write `.998 [.995, 1.000]`, with two digits of the interval's width.

    Of an interval without a width, four; none where the number is whole.
    """
    if value.mean is None:
        return Cell("no shared seed")
    if value.low is None or value.high is None:
        return Cell(number(value.mean, 4, sign))
    width = value.high - value.low
    without = 0 if value.mean == round(value.mean) else 4
    decimals = min(5, max(0, 1 - floor(log10(width)))) if width else without
    low, high = number(value.low, decimals), number(value.high, decimals)
    return Cell(number(value.mean, decimals, sign), f"[{low}, {high}]")


def number(value: float, decimals: int, sign: str = "") -> str:
    """Write a number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{decimals}f}")


def count(amount: int | float) -> str:
    """Write a large number with three digits and a unit."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount:.0f}"


def _keys(panel: Panel) -> list[str]:
    keys = [key for key in panel.columns if len({shown(g.keys[key]) for g in panel.groups}) > 1]
    return keys or list(panel.columns)


def _p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "0" if p == 0 else "<.001" if p < 0.001 else number(p, 3)
