"""Intervals and tests over seeds, for values that are few and nearly normal."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
"""How often an interval is to hold the true mean."""


class Interval(NamedTuple):
    """A mean over n values and the interval around it; None where the values do not say."""

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
    """Give the mean with Student's t-interval (Student 1908); a single value has no interval.

    Equal values have an interval of zero width; values that are not finite have no mean.
    """
    if not values or not np.isfinite(values).all():
        return Interval(len(values), None, None, None)
    mean, error = _mean_and_error(values)
    if error is None:
        return Interval(1, mean, None, None)
    reach = error * float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2))
    return Interval(len(values), mean, mean - reach, mean + reach)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare two groups on the seeds that both have: ours minus theirs, seed by seed.

    Differences that are all the same leave no spread to test against: p is 1 where they are 0, and
    0 elsewhere.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    operands = [abs(values[seed]) for values in (ours, theirs) for seed in seeds]
    # .997 - .994 and .998 - .995 differ by rounding alone, which is no spread.
    if np.ptp(differences or [0]) <= 4 * np.finfo(float).eps * max(operands, default=0):
        differences = differences[:1] * len(differences)
    whole = interval(differences)
    if whole.mean is None or whole.low is None:
        return Difference(*whole, p=None)
    mean, error = _mean_and_error(differences)
    if not error:
        return Difference(*whole, p=0.0 if mean else 1.0)
    return Difference(*whole, p=2 * float(stdtr(len(differences) - 1, -abs(mean) / error)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values that are read together, so that any false alarm has their odds (Holm 1979).

    None, where nothing was tested, stays and does not count.
    """
    ascending = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    corrected = list(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(ascending):
        highest = max(highest, min(1.0, p * (len(ascending) - rank)))
        corrected[at] = highest
    return corrected


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; exact where all values are equal, so that 0 means 0."""
    if len(values) == 1:
        return float(values[0]), None
    if min(values) == max(values):
        return float(values[0]), 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
