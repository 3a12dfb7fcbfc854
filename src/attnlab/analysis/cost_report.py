"""The cost of models on this machine by sequence length: time, peak memory and FLOPs.

from attnlab.analysis.cost_arms import cost_arms
from attnlab.analysis.cost_report import cost_report

arms = cost_arms(["model/mixer=multihead,min_lstm"], longest=1024, modes=["forward"])
report = cost_report(arms, [256, 512, 1024], ["forward"])
report.arms[0].modes["forward"].exponents.time  # the power of the length, and its standard error
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

import torch

from attnlab.analysis.cost_arms import CostArms
from attnlab.analysis.growth import Growth, fit_growth
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.measure import LEAST_SECONDS, MODES, MeasuredArm, Measurement, measure
from attnlab.model.base import active_parameters, parameters


@dataclass(frozen=True)
class Machine:
    """The machine on which the costs were measured."""

    device: str | None
    """None where the system does not say."""
    threads: int
    torch: str
    """Its version."""
    matmul_precision: str
    """The precision of matrix products in float32, as PyTorch names it."""


@dataclass(frozen=True)
class LengthCost:
    """The cost of a call at one length; None (and no rounds) where the memory did not suffice."""

    length: int
    """Tokens of a sequence."""
    batch: int
    """The number of sequences of a call."""
    seconds: float | None
    """The median of the rounds."""
    low: float | None
    """The lower quartile of the rounds."""
    high: float | None
    """The upper quartile of the rounds."""
    rounds: Sequence[float]
    """The seconds of a call in each round."""
    tokens_per_second: float | None
    peak_bytes: int | None
    """The peak memory of a call, on top of parameters and inputs."""
    flops: int | None
    """The FLOPs of the forward pass."""
    state_size: int | None
    """The numbers kept of one sequence of that length; None where the model cannot step."""


@dataclass(frozen=True)
class ModeCosts:
    """The costs of an arm in one mode, and how they grow with the length."""

    exponents: Growth
    lengths: Sequence[LengthCost]


@dataclass(frozen=True)
class ArmCosts:
    """The costs of an arm in each mode."""

    name: str
    overrides: Sequence[str]
    precision: str
    parameters: int
    active_parameters: int
    """The parameters that one token uses."""
    modes: Mapping[str, ModeCosts]
    """forward (in evaluation, no gradients), backward (forward, loss and backward), decode (one
    token of one sequence, the earlier ones cached)."""


@dataclass(frozen=True)
class CostReport(Report):
    """The costs of models by sequence length."""

    date: str
    """The date and time, as in 2026-12-01T15:58:53Z."""
    machine: Machine
    least_seconds: float
    """The least duration of a timing."""
    tokens: int
    """The number of tokens of a call, as near as whole sequences come."""
    rounds: int
    """How often each call was timed."""
    arms: Sequence[ArmCosts]


def require_measurable(lengths: Sequence[int], tokens: int, rounds: int) -> None:
    """Raise RequestError for lengths, tokens or rounds that cannot be measured."""
    if min(lengths) < 2:
        raise RequestError(f"lengths {min(lengths)}: a sequence must have at least 2 tokens")
    for name, value in (("tokens", tokens), ("rounds", rounds)):
        if value < 1:
            raise RequestError(f"{name} {value} must be at least 1")


def cost_report(
    cost_arms: CostArms,
    lengths: Sequence[int],
    modes: Sequence[str] = tuple(MODES),
    *,
    tokens: int = 4096,
    rounds: int = 7,
    device_name: str | None = None,
    on_measurement: Callable[[Measurement], None] = lambda _: None,
) -> CostReport:
    """Measure all arms at all lengths, and return their costs.

    `on_measurement` is called with each measurement. Raises RequestError as `require_measurable`
    does.
    """
    require_measurable(lengths, tokens, rounds)
    modes = [mode for mode in MODES if mode in modes]
    measurements: list[Measurement] = []
    for measurement in measure(cost_arms.arms, lengths, modes, tokens, rounds, cost_arms.device):
        measurements.append(measurement)
        on_measurement(measurement)
    return CostReport(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=Machine(
            device=device_name,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            matmul_precision=torch.get_float32_matmul_precision(),
        ),
        least_seconds=LEAST_SECONDS,
        tokens=tokens,
        rounds=rounds,
        arms=[
            _summarize_arm(
                arm,
                overrides,
                modes,
                [measurement for measurement in measurements if measurement.arm == arm.name],
            )
            for arm, overrides in zip(cost_arms.arms, cost_arms.overrides, strict=True)
        ],
    )


def length_cost(measurement: Measurement) -> LengthCost:
    """Return the cost of a call: the median of the rounds, and their quartiles."""
    low, median, high = _quartiles(measurement.seconds)
    return LengthCost(
        length=measurement.length,
        batch=measurement.batch,
        seconds=median,
        low=low,
        high=high,
        rounds=list(measurement.seconds),
        tokens_per_second=measurement.tokens_per_second,
        peak_bytes=measurement.peak_bytes,
        flops=measurement.flops,
        state_size=measurement.state_size,
    )


def _summarize_arm(
    arm: MeasuredArm,
    overrides: Sequence[str],
    modes: Sequence[str],
    measurements: Sequence[Measurement],
) -> ArmCosts:
    """Return the costs of an arm from its measurements."""
    measurements_by_mode = {
        mode: [measurement for measurement in measurements if measurement.mode == mode]
        for mode in modes
    }
    return ArmCosts(
        name=arm.name,
        overrides=list(overrides),
        precision=arm.precision,
        parameters=parameters(arm.model),
        active_parameters=active_parameters(arm.model),
        modes={
            mode: ModeCosts(
                exponents=fit_growth(mode_measurements),
                lengths=[length_cost(measurement) for measurement in mode_measurements],
            )
            for mode, mode_measurements in measurements_by_mode.items()
        },
    )


def _quartiles(numbers: Sequence[float]) -> Sequence[float | None]:
    """Return the three quartiles; a single number thrice, and None thrice without numbers."""
    if len(numbers) < 2:
        return [*(numbers or (None,))] * 3
    return quantiles(numbers, n=4, method="inclusive")
