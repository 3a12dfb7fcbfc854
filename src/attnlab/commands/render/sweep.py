"""Sweeps in the terminal: which there are, and where each of them stands."""

from rich.table import Table
from rich.text import Text

from attnlab.analysis.sweep_status import CellStatus, SweepList, SweepStatus
from attnlab.analysis.units import format_duration
from attnlab.console import Console
from attnlab.printable import one_line


def print_sweeps(report: SweepList, console: Console) -> None:
    """Print a row for each sweep."""
    table = Table(box=None, pad_edge=False)
    for heading in ("sweep", "runs", "states", "left"):
        table.add_column(heading, justify="right" if heading == "runs" else "left")
    for status in report.sweeps:
        table.add_row(
            Text(status.sweep), str(len(status.cells)), _describe_states(status), _left(status)
        )
    console.print(table if report.sweeps else "no sweeps; `attnlab train -m` makes one")


def print_status(status: SweepStatus, console: Console) -> None:
    """Print a row for each run of a sweep, and below it how many are in which state."""
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "step", "left", "tries"):
        table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
    for cell in status.cells:
        left = "" if cell.seconds_left is None else format_duration(cell.seconds_left)
        tries = str(cell.attempts) if cell.attempts else ""
        table.add_row(Text(one_line(cell.label)), _state(cell), _steps(cell), left, tries)
    console.print(table)
    for cell in status.cells:
        if cell.error:
            console.print(Text(f"{one_line(cell.label)}: {one_line(cell.error)}"), soft_wrap=True)
    for launch in status.launches:
        stopping = ", which was asked to stop" if launch.is_cancelled else ""
        console.print(
            f"trained by process {launch.pid} on {one_line(launch.host)} with "
            f"launcher={one_line(launch.launcher)}, {launch.jobs} at a time{stopping}",
            soft_wrap=True,
        )
    left = f"; about {_left(status)} left" if _left(status) else ""
    console.print(f"sweep {status.sweep}: {_describe_states(status)}{left}", soft_wrap=True)


def _describe_states(status: SweepStatus) -> str:
    return ", ".join(f"{count} {state}" for state, count in status.states.items())


def _left(status: SweepStatus) -> str:
    return "" if status.seconds_left is None else format_duration(status.seconds_left)


def _state(cell: CellStatus) -> str:
    return f"{cell.state}: {cell.cause}" if cell.cause else cell.state


def _steps(cell: CellStatus) -> str:
    if cell.max_steps is None or not cell.run:
        return ""
    return f"{cell.step:,}/{cell.max_steps:,}"
