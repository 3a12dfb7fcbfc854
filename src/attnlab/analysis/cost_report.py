"""What models cost on this machine by the length of the sequence: time, peak memory and FLOPs.

from attnlab.analysis.cost_arms import cost_arms
from attnlab.analysis.cost_report import cost_report

arms = cost_arms(["model/mixer=multihead,min_lstm"], longest=1024, modes=["forward"])
report = cost_report(arms, [256, 512, 1024], ["forward"])
report.arms[0].modes["forward"].exponents.time  # the power of the length, and its standard error

JSON has schema, date, machine {"device", "threads", "torch", "matmul_precision"}, least_seconds
(that a timing takes), tokens, rounds and arms [ARM]:

    ARM       name, overrides, precision, parameters, active_parameters, modes {MODE: COSTS}
    MODE      forward (in evaluation, no gradients), backward (forward, loss, backward), decode (one
              token of one sequence, the earlier ones cached)
    COSTS     {"exponents": {"time", "memory", "flops"}, "lengths": [LENGTH]}; an exponent is
              {"value", "error" (standard, null for two lengths)} of one sequence's cost, null for
              one length and where an arm takes none
    LENGTH    length, batch (sequences of a call), seconds (median of a call), low, high
              (quartiles), rounds [seconds], tokens_per_second, peak_bytes (a call's, on top of
              parameters), flops (a call's forward pass), state_size (numbers kept of a sequence
              of that length, null where the model cannot step); where the memory did not suffice,
              all but length, batch and state_size are null, and rounds is empty
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

import torch

from attnlab.analysis.cost_arms import CostArms
from attnlab.analysis.growth import Growth, growth
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.measure import LEAST, MODES, Arm, Cell, measure
from attnlab.model.base import active_parameters, parameters


@dataclass(frozen=True)
class Machine:
    """On what was measured."""

    device: str | None
    """None where the system does not say."""
    threads: int
    torch: str
    """Its version."""
    matmul_precision: str


@dataclass(frozen=True)
class LengthCost:
    """What a call took at a length; None where the memory did not suffice."""

    length: int
    batch: int
    """Sequences of a call."""
    seconds: float | None
    """The median of the rounds."""
    low: float | None
    """A quartile, as `high`."""
    high: float | None
    rounds: Sequence[float]
    """The seconds of a call in each round."""
    tokens_per_second: float | None
    peak_bytes: int | None
    """On top of parameters and inputs."""
    flops: int | None
    """Of the forward pass."""
    state_size: int | None
    """Numbers that are kept of one sequence; None where the model cannot step."""


@dataclass(frozen=True)
class ModeCosts:
    """What an arm takes in a mode, and how that grows."""

    exponents: Growth
    lengths: Sequence[LengthCost]


@dataclass(frozen=True)
class ArmCosts:
    """What an arm takes in each mode."""

    name: str
    overrides: Sequence[str]
    precision: str
    parameters: int
    active_parameters: int
    modes: Mapping[str, ModeCosts]


@dataclass(frozen=True)
class CostReport(Report):
    """What models cost by the length of the sequence."""

    date: str
    """When, as in 2026-12-01T15:58:53Z."""
    machine: Machine
    least_seconds: float
    """Those that a timing takes."""
    tokens: int
    """Of a call, as near as whole sequences come."""
    rounds: int
    arms: Sequence[ArmCosts]


def require_costs(lengths: Sequence[int], tokens: int, rounds: int) -> None:
    """Refuse what cannot be measured. Raises RequestError."""
    if min(lengths) < 2:
        raise RequestError(f"--lengths {min(lengths)}: a sequence must have at least 2 tokens")
    for name, value in (("tokens", tokens), ("rounds", rounds)):
        if value < 1:
            raise RequestError(f"--{name} {value} must be at least 1")


def cost_report(
    cost_arms: CostArms,
    lengths: Sequence[int],
    modes: Sequence[str] = tuple(MODES),
    *,
    tokens: int = 4096,
    rounds: int = 7,
    device_name: str | None = None,
    on_cell: Callable[[Cell], None] = lambda _: None,
) -> CostReport:
    """Measure all arms at all lengths, and return what they cost.

    `on_cell` hears of each measurement when it is done. Raises RequestError for what cannot be.
    """
    require_costs(lengths, tokens, rounds)
    modes = [mode for mode in MODES if mode in modes]
    cells: list[Cell] = []
    for cell in measure(cost_arms.arms, lengths, modes, tokens, rounds, cost_arms.device):
        cells.append(cell)
        on_cell(cell)
    return CostReport(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=Machine(
            device=device_name,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            matmul_precision=torch.get_float32_matmul_precision(),
        ),
        least_seconds=LEAST,
        tokens=tokens,
        rounds=rounds,
        arms=[
            _arm_costs(arm, overrides, modes, [cell for cell in cells if cell.arm == arm.name])
            for arm, overrides in zip(cost_arms.arms, cost_arms.overrides, strict=True)
        ],
    )


def length_cost(cell: Cell) -> LengthCost:
    """Return what a call took: the median of the rounds, and their quartiles."""
    low, middle, high = _quartiles(cell.seconds)
    return LengthCost(
        length=cell.length,
        batch=cell.batch,
        seconds=middle,
        low=low,
        high=high,
        rounds=list(cell.seconds),
        tokens_per_second=cell.tokens_per_second,
        peak_bytes=cell.peak,
        flops=cell.flops,
        state_size=cell.state_size,
    )


def _arm_costs(
    arm: Arm, overrides: Sequence[str], modes: Sequence[str], cells: Sequence[Cell]
) -> ArmCosts:
    by_mode = {mode: [cell for cell in cells if cell.mode == mode] for mode in modes}
    return ArmCosts(
        name=arm.name,
        overrides=list(overrides),
        precision=arm.precision,
        parameters=parameters(arm.model),
        active_parameters=active_parameters(arm.model),
        modes={
            mode: ModeCosts(growth(of_mode), [length_cost(cell) for cell in of_mode])
            for mode, of_mode in by_mode.items()
        },
    )


def _quartiles(numbers: Sequence[float]) -> Sequence[float | None]:
    if len(numbers) < 2:
        return [*(numbers or (None,))] * 3
    return quantiles(numbers, n=4, method="inclusive")
