"""The costs of models by sequence length, in the terminal and as a figure."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attnlab.analysis.table import format_count
from attnlab.console import Console

if TYPE_CHECKING:
    from attnlab.analysis.cost_report import ArmCosts, CostReport, LengthCost
    from attnlab.analysis.growth import Exponent
    from attnlab.figures.scaling import ScalingLine, ScalingPanel

TITLES = {"forward": "Forward", "backward": "Forward and backward", "decode": "Decode"}
MOST_MEMORY = ("backward", "forward", "decode")
"""The modes, the one that takes the most memory first."""


def print_costs(report: "CostReport", console: Console) -> None:
    """Print a table for each mode, below the machine."""
    # torch takes seconds to import; here the measurement has already imported it.
    from attnlab.measure import MODES

    machine = report.machine
    threads = f"{machine.threads} thread{'s' * (machine.threads > 1)}"
    console.print(f"{machine.device}, {threads}, torch {machine.torch}")
    for mode in report.arms[0].modes:
        console.print()
        console.print(f"{mode}: {MODES[mode]}", style="bold")
        console.print(_build_table(report.arms, mode))
    console.print(
        f"Medians of {report.rounds} turns ± half the range between the quartiles; "
        f"{report.tokens} tokens a call, as near as whole sequences come, and to decode one; "
        "memory on top of parameters; FLOPs of the forward pass. Power of the length: fitted to "
        "what one sequence takes, ± its standard error. State: numbers kept of a sequence."
    )


def cost_figure(report: "CostReport") -> Any:
    """Return the figure: the time in each mode, and the memory of the costliest mode."""
    # Altair takes a while to load, and a table does not need it.
    from attnlab.figures.scaling import draw_scaling

    panels = _build_panels(report.arms)
    return draw_scaling([panel for panel in panels if any(line.points for line in panel.lines)])


def _build_table(arms: "Sequence[ArmCosts]", mode: str) -> Table:
    """Build the table of a mode: for each arm a row for each length, and how its costs grow."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    with_state = mode == "decode"
    state_header = ["state"] if with_state else []
    for header in ("length", "ms a call", "tokens/s", "peak MB", "FLOPs", *state_header):
        table.add_column(header, justify="right", no_wrap=True)
    for arm in arms:
        costs = arm.modes[mode]
        for index, length_cost in enumerate(costs.lengths):
            cells = _format_cells(length_cost, with_state=with_state)
            table.add_row("" if index else arm.name, str(length_cost.length), *cells)
        if len(costs.lengths) > 1:
            exponents = costs.exponents
            time, memory, flops = map(
                _format_exponent, (exponents.time, exponents.memory, exponents.flops)
            )
            table.add_row("", "power", time, "", memory, flops, style="dim")
    return table


def _format_cells(length_cost: "LengthCost", *, with_state: bool) -> list[str]:
    """Return the costs at a length as the texts of a row."""
    if length_cost.seconds is None:
        return ["out of memory"]
    half_spread_percent = (
        50 * ((length_cost.high or 0) - (length_cost.low or 0)) / length_cost.seconds
    )
    spread = f" ±{half_spread_percent:.0f}%" if len(length_cost.rounds) > 1 else ""
    cells = [
        _three_digits(1000 * length_cost.seconds) + spread,
        format_count(length_cost.tokens_per_second or 0),
        _three_digits((length_cost.peak_bytes or 0) / 1e6),
        format_count(length_cost.flops or 0),
    ]
    return [*cells, format_count(length_cost.state_size or 0)] if with_state else cells


def _format_exponent(exponent: "Exponent | None", gap: str = " ") -> str:
    """Return an exponent with its standard error as text."""
    if exponent is None:
        return ""
    # Adding 0.0 turns -0.0 into 0.0.
    power = f"{round(exponent.value, 2) + 0.0:.2f}"
    error = exponent.error
    return power if error is None else f"{power}{gap}±{gap}{error:.2f}".replace("±0.", "±.")


def _three_digits(number: float) -> str:
    """Return a number with three significant digits, or all digits before the decimal point."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:#.3g}"


def _build_panels(arms: "Sequence[ArmCosts]") -> "Iterator[ScalingPanel]":
    """Yield a panel of the time in each mode, and one of the memory in the costliest mode."""
    from attnlab.figures.scaling import ScalingPanel

    modes = arms[0].modes
    for mode in modes:
        unit = "ms a token, the earlier ones cached" if mode == "decode" else "ms a sequence"
        yield ScalingPanel(TITLES[mode], unit, [_time_line(arm, mode) for arm in arms])
    costliest_mode = next(mode for mode in MOST_MEMORY if mode in modes)
    yield ScalingPanel(
        f"Peak memory, {TITLES[costliest_mode].lower()}",
        "MB a sequence, on top of parameters",
        [_memory_line(arm, costliest_mode) for arm in arms],
    )


def _time_line(arm: "ArmCosts", mode: str) -> "ScalingLine":
    """Return the line of an arm's milliseconds by length."""
    from attnlab.figures.scaling import ScalingLine, ScalingPoint

    costs = arm.modes[mode]
    points = [
        ScalingPoint(
            length_cost.length,
            *_per_sequence(
                length_cost, (length_cost.seconds, length_cost.low, length_cost.high), 1e3
            ),
        )
        for length_cost in costs.lengths
        if length_cost.seconds is not None
    ]
    return ScalingLine(arm.name, _format_exponent(costs.exponents.time), points)


def _memory_line(arm: "ArmCosts", mode: str) -> "ScalingLine":
    """Return the line of an arm's peak megabytes by length."""
    from attnlab.figures.scaling import ScalingLine, ScalingPoint

    costs = arm.modes[mode]
    points = [
        ScalingPoint(
            length_cost.length, *_per_sequence(length_cost, [length_cost.peak_bytes] * 3, 1e-6)
        )
        for length_cost in costs.lengths
        if length_cost.seconds is not None
    ]
    return ScalingLine(arm.name, _format_exponent(costs.exponents.memory), points)


def _per_sequence(
    length_cost: "LengthCost", call_costs: Sequence[int | float | None], unit_factor: float
) -> Sequence[float]:
    """Return the costs of a call for one of its sequences, in another unit."""
    return [unit_factor * (call_cost or 0) / length_cost.batch for call_cost in call_costs]
