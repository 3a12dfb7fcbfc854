"""A comparison in the terminal: a table for each panel, as wide as the screen."""

from collections.abc import Sequence

from rich.measure import Measurement
from rich.table import Table

from attnlab.analysis.compare import Comparison, Panel
from attnlab.analysis.table import (
    Column,
    comparison_columns,
    letter_arms,
    panel_legend,
    panel_title,
)
from attnlab.console import Console


def print_comparison(report: Comparison, console: Console) -> None:
    """Print every panel, and the runs that could not be used."""
    for panel in report.panels:
        _print_panel(panel, console)
    for footnote in report.footnotes:
        console.print(footnote)


def _print_panel(panel: Panel, console: Console) -> None:
    console.print(panel_title(panel), style="bold")
    table_columns = comparison_columns(panel)
    lettered_columns, lines = letter_arms(table_columns)
    layouts = [
        _build_table(table_columns),
        # Narrower, with the interval below its number.
        _build_table(table_columns, gap=1, between="\n"),
        _build_table(lettered_columns),
        _build_table(lettered_columns, gap=1, between="\n"),
    ]
    unbounded = console.options.update(max_width=999)
    fitting = (
        place
        for place, table in enumerate(layouts)
        if Measurement.get(console, unbounded, table).maximum <= console.width
    )
    place = next(fitting, len(layouts) - 1)
    console.print(layouts[place])
    for line in (*(lines if place >= 2 else ()), panel_legend(panel), *panel.notes):
        console.print(line)
    console.print()


def _build_table(panel_columns: Sequence[Column], gap: int = 2, between: str = " ") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in panel_columns:
        justify = "right" if column.is_count else "left"
        table.add_column(column.header, justify=justify, overflow="fold")
    for row in zip(*(column.cells for column in panel_columns), strict=True):
        table.add_row(*(cell.to_text(between) for cell in row))
    return table
