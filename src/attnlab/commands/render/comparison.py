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
    """Print a panel in the first layout that fits the screen, else in the narrowest."""
    console.print(panel_title(panel), style="bold")
    panel_columns = comparison_columns(panel)
    lettered_columns, letter_legend = letter_arms(panel_columns)
    layouts: list[tuple[Table, Sequence[str]]] = [
        (_build_table(panel_columns), ()),
        (_build_table(panel_columns, gap=1), ()),
        # Narrower, with the interval below its number.
        (_build_table(panel_columns, gap=1, separator="\n"), ()),
        (_build_table(lettered_columns), letter_legend),
        (_build_table(lettered_columns, gap=1), letter_legend),
        (_build_table(lettered_columns, gap=1, separator="\n"), letter_legend),
    ]
    fitting_layouts = ((table, lines) for table, lines in layouts if _fits(table, console))
    table, legend_lines = next(fitting_layouts, layouts[-1])
    console.print(table)
    for line in (*legend_lines, panel_legend(panel), *panel.notes):
        console.print(line)
    console.print()


def _fits(table: Table, console: Console) -> bool:
    unbounded = console.options.update(max_width=999)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _build_table(panel_columns: Sequence[Column], gap: int = 2, separator: str = " ") -> Table:
    """Build a table with `gap` spaces between columns, and a separator before each interval."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in panel_columns:
        justify = "right" if column.is_count else "left"
        table.add_column(column.header, justify=justify, overflow="fold")
    for cells in zip(*(column.cells for column in panel_columns), strict=True):
        table.add_row(*(cell.to_text(separator) for cell in cells))
    return table
