"""A comparison in the terminal: a table for each panel, as wide as the screen."""

import re
from collections.abc import Sequence

from rich.measure import Measurement
from rich.table import Table

from attnlab.analysis.compare import Comparison, Panel
from attnlab.analysis.left_out import by_reason, by_state
from attnlab.analysis.table import Column, comparison_columns, legend, title
from attnlab.console import Console


def print_comparison(report: Comparison, console: Console) -> None:
    """Print every panel, and the runs that could not be used."""
    for panel in report.panels:
        _print_panel(panel, console)
    for note in report.notes:
        console.print(note)
    for line in by_reason(report.left_out):
        console.print(f"left out: {line}")
    if states := by_state(report.left_out):
        console.print(f"left out: {states}")


def _print_panel(panel: Panel, console: Console) -> None:
    console.print(title(panel), style="bold")
    unbounded = console.options.update(max_width=999)
    panel_columns = comparison_columns(panel)
    # From the widest layout to the narrowest, which has the interval below its number.
    for layout in ({}, {"gap": 1, "folded": True}, {"gap": 1, "folded": True, "between": "\n"}):
        table = _build_table(panel_columns, **layout)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    console.print(table)
    for line in (legend(panel), *panel.notes):
        console.print(line)
    console.print()


def _build_table(
    panel_columns: Sequence[Column], gap: int = 2, folded: bool = False, between: str = " "
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in panel_columns:
        # A header may be broken at the boundaries of its words.
        breaks = folded and column.is_key
        header = re.sub(r"(?<=_)|(?=\.)", "\n", column.header) if breaks else column.header
        table.add_column(header, justify="right" if column.is_count else "left", overflow="fold")
    for row in zip(*(column.cells for column in panel_columns), strict=True):
        table.add_row(*(cell.joined(between) for cell in row))
    return table
