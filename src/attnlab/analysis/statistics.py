"""Intervals and tests over seeds, for few and nearly normal values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
"""The share of intervals that contain the true mean."""


class Interval(NamedTuple):
    """A mean over n values and the interval around it; None where it cannot be computed."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """The mean difference of n pairs, its interval, and the p value of the paired t-test."""

    n: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None


def interval(values: Sequence[float]) -> Interval:
    """Return the mean with Student's t-interval (Student 1908); a single value has no interval.

    Equal values have an interval of zero width; values that are not finite have no mean.
    """
    if not values or not np.isfinite(values).all():
        return Interval(len(values), None, None, None)
    mean, error = _mean_and_error(values)
    if error is None:
        return Interval(1, mean, None, None)
    half_width = error * float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2))
    return Interval(len(values), mean, mean - half_width, mean + half_width)


def paired(group_values: Mapping[int, float], baseline_values: Mapping[int, float]) -> Difference:
    """Compare a group with a baseline on their common seeds: group minus baseline, seed by seed.

    Equal differences have no spread to test against: p is then 1 where they are 0, and 0 elsewhere.
    """
    seeds = sorted(group_values.keys() & baseline_values.keys())
    differences = [group_values[seed] - baseline_values[seed] for seed in seeds]
    operands = [
        abs(side_values[seed]) for side_values in (group_values, baseline_values) for seed in seeds
    ]
    # .997 - .994 and .998 - .995 differ by rounding alone, which is no spread.
    if np.ptp(differences or [0]) <= 4 * np.finfo(float).eps * max(operands, default=0):
        differences = differences[:1] * len(differences)
    mean_difference = interval(differences)
    if mean_difference.mean is None or mean_difference.low is None:
        return Difference(*mean_difference, p=None)
    mean, error = _mean_and_error(differences)
    if not error:
        return Difference(*mean_difference, p=0.0 if mean else 1.0)
    return Difference(
        *mean_difference, p=2 * float(stdtr(len(differences) - 1, -abs(mean) / error))
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for multiple testing, so that they bound the family-wise error (Holm 1979).

    None stands for no test; it stays None and does not count.
    """
    ascending = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected = list(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        corrected[index] = highest
    return corrected


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; exactly 0 for equal values, None for one value."""
    if len(values) == 1:
        return float(values[0]), None
    if min(values) == max(values):
        return float(values[0]), 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
