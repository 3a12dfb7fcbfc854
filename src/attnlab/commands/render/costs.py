"""What models cost by length, in the terminal and as a figure."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attnlab.analysis.table import count
from attnlab.console import Console

if TYPE_CHECKING:
    from attnlab.analysis.cost_report import ArmCosts, CostReport, LengthCost
    from attnlab.analysis.growth import Exponent
    from attnlab.figures.scaling import Line, Panel

TITLES = {"forward": "Forward", "backward": "Forward and backward", "decode": "Decode"}
MOST_MEMORY = ("backward", "forward", "decode")
"""The modes, by what they take."""


def print_costs(report: "CostReport", console: Console) -> None:
    """Print a table for each mode, below the machine."""
    # torch takes seconds to import, and measuring has done it.
    from attnlab.measure import MODES

    machine = report.machine
    threads = f"{machine.threads} thread{'s' * (machine.threads > 1)}"
    console.print(f"{machine.device}, {threads}, torch {machine.torch}")
    for mode in report.arms[0].modes:
        console.print()
        console.print(f"{mode}: {MODES[mode]}", style="bold")
        console.print(_table(report.arms, mode))
    console.print(
        f"Medians of {report.rounds} turns ± half the range between the quartiles; "
        f"{report.tokens} tokens a call, as near as whole sequences come, and to decode one; "
        "memory on top of parameters; FLOPs of the forward pass. Power of the length: fitted to "
        "what one sequence takes, ± its standard error. State: numbers kept of a sequence."
    )


def cost_figure(report: "CostReport") -> Any:
    """Return the figure: the time in each mode, and the memory of the most costly."""
    # Altair takes a while to load, and a table needs none.
    from attnlab.figures.scaling import scaling

    panels = _panels(report.arms)
    return scaling([panel for panel in panels if any(line.points for line in panel.lines)])


def _table(arms: "Sequence[ArmCosts]", mode: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    with_state = mode == "decode"
    last = ["state"] if with_state else []
    for header in ("length", "ms a call", "tokens/s", "peak MB", "FLOPs", *last):
        table.add_column(header, justify="right", no_wrap=True)
    for arm in arms:
        costs = arm.modes[mode]
        for at, row in enumerate(costs.lengths):
            measured = _measured(row, with_state=with_state)
            table.add_row("" if at else arm.name, str(row.length), *measured)
        if len(costs.lengths) > 1:
            growth = costs.exponents
            time, memory, flops = map(_power, (growth.time, growth.memory, growth.flops))
            table.add_row("", "power", time, "", memory, flops, style="dim")
    return table


def _measured(row: "LengthCost", *, with_state: bool) -> list[str]:
    if row.seconds is None:
        return ["out of memory"]
    half = 50 * ((row.high or 0) - (row.low or 0)) / row.seconds
    spread = f" ±{half:.0f}%" if len(row.rounds) > 1 else ""
    cells = [
        _three(1000 * row.seconds) + spread,
        count(row.tokens_per_second or 0),
        _three((row.peak_bytes or 0) / 1e6),
        count(row.flops or 0),
    ]
    return [*cells, count(row.state_size or 0)] if with_state else cells


def _power(exponent: "Exponent | None", gap: str = " ") -> str:
    """Write an exponent with its standard error."""
    if exponent is None:
        return ""
    # -0.00 says nothing that 0.00 does not.
    power = f"{round(exponent.value, 2) + 0.0:.2f}"
    error = exponent.error
    return power if error is None else f"{power}{gap}±{gap}{error:.2f}".replace("±0.", "±.")


def _three(number: float) -> str:
    """Write a number with three digits, or all those before the point."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:#.3g}"


def _panels(arms: "Sequence[ArmCosts]") -> "Iterator[Panel]":
    from attnlab.figures.scaling import Panel

    modes = arms[0].modes
    for mode in modes:
        unit = "ms a token, the earlier ones cached" if mode == "decode" else "ms a sequence"
        yield Panel(TITLES[mode], unit, [_time_line(arm, mode) for arm in arms])
    most = next(mode for mode in MOST_MEMORY if mode in modes)
    yield Panel(
        f"Peak memory, {TITLES[most].lower()}",
        "MB a sequence, on top of parameters",
        [_memory_line(arm, most) for arm in arms],
    )


def _time_line(arm: "ArmCosts", mode: str) -> "Line":
    from attnlab.figures.scaling import Line, Point

    costs = arm.modes[mode]
    points = [
        Point(row.length, *_per_sequence(row, (row.seconds, row.low, row.high), 1e3))
        for row in costs.lengths
        if row.seconds is not None
    ]
    return Line(arm.name, _power(costs.exponents.time), points)


def _memory_line(arm: "ArmCosts", mode: str) -> "Line":
    from attnlab.figures.scaling import Line, Point

    costs = arm.modes[mode]
    points = [
        Point(row.length, *_per_sequence(row, [row.peak_bytes] * 3, 1e-6))
        for row in costs.lengths
        if row.seconds is not None
    ]
    return Line(arm.name, _power(costs.exponents.memory), points)


def _per_sequence(
    row: "LengthCost", costs: Sequence[int | float | None], unit: float
) -> Sequence[float]:
    return [unit * (cost or 0) / row.batch for cost in costs]
