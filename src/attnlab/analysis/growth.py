"""The growth of a sequence's cost with its length, as a power of the length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import NamedTuple

from attnlab.measure import Measurement


class Exponent(NamedTuple):
    """The power of the length with which a cost grows, and its standard error."""

    value: float
    error: float | None
    """None for two lengths, which a power always fits exactly."""


@dataclass(frozen=True)
class Growth:
    """The power of the length with which each cost of one sequence grows.

    None for a single length, and where the cost is 0.
    """

    time: Exponent | None
    memory: Exponent | None
    flops: Exponent | None


def fit_growth(measurements: Sequence[Measurement]) -> Growth:
    """Fit time, peak memory and FLOPs of one sequence over the measurements of one arm and mode."""
    timed_measurements = [measurement for measurement in measurements if measurement.seconds]
    lengths = [measurement.length for measurement in timed_measurements]

    def fit_nonzero(costs: Sequence[float]) -> Exponent | None:
        # A cost of 0 has no logarithm.
        return fit_exponent(lengths, costs) if all(costs) else None

    return Growth(
        time=fit_nonzero(
            [median(measurement.seconds) / measurement.batch for measurement in timed_measurements]
        ),
        memory=fit_nonzero(
            [
                (measurement.peak_bytes or 0) / measurement.batch
                for measurement in timed_measurements
            ]
        ),
        flops=fit_nonzero(
            [(measurement.flops or 0) / measurement.batch for measurement in timed_measurements]
        ),
    )


def fit_exponent(lengths: Sequence[int], values: Sequence[float]) -> Exponent | None:
    """Fit a power of the length by least squares of the logarithms; None for a single length."""
    if len(lengths) < 2:
        return None
    log_lengths = [math.log(length) for length in lengths]
    log_values = [math.log(value) for value in values]
    slope, intercept = linear_regression(log_lengths, log_values)
    if len(log_lengths) == 2:
        return Exponent(slope, None)
    mean_log_length = sum(log_lengths) / len(log_lengths)
    squared_residuals = sum(
        (log_value - intercept - slope * log_length) ** 2
        for log_length, log_value in zip(log_lengths, log_values, strict=True)
    )
    squared_deviations = sum((log_length - mean_log_length) ** 2 for log_length in log_lengths)
    residual_variance = squared_residuals / (len(log_lengths) - 2)
    return Exponent(slope, math.sqrt(residual_variance / squared_deviations))
