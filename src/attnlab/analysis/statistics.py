"""Intervals and tests over seeds, for few and nearly normal values.

What a reader is shown (`estimate`, `paired_estimate`) stays inside the range of the metric and
needs three seeds. What claims are judged by (`t_interval`, `paired_difference`) is Student's t as
it stands, as their thresholds were committed against it.
"""

from collections.abc import Mapping, Sequence
from math import exp, inf
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

from attnlab.run_record.bounds import ANY, Bounds

CONFIDENCE = 0.95
"""The share of intervals that contain the true mean."""
ENOUGH_SEEDS = 3
"""The number of seeds below which there is no interval, and no evidence for a claim."""


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


def t_interval(values: Sequence[float]) -> Interval:
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


def estimate(values: Sequence[float], bounds: Bounds = ANY) -> Interval:
    """Return the mean with an interval inside the bounds; fewer than 3 values have no interval.

    A metric with two bounds has the t-interval of its logit, and one with a single bound that of
    its logarithm. Both are centred at the arithmetic mean, with the standard error by the delta
    method (Agresti 2013, sec. 16.1; as `svyciprop` of R's survey package): they contain the mean,
    agree with `t_interval` where the spread is small, and cover better where values are close to a
    bound. Values outside of the bounds, and a mean on one, have the interval of `t_interval`.
    """
    student_interval = t_interval(values)
    if student_interval.n < ENOUGH_SEEDS:
        return student_interval._replace(low=None, high=None)
    if (
        student_interval.mean is None
        or student_interval.low is None
        or student_interval.low == student_interval.high
    ):
        return student_interval
    are_values_in_bounds = bounds.low <= min(values) and max(values) <= bounds.high
    if not are_values_in_bounds or not bounds.low < student_interval.mean < bounds.high:
        return student_interval
    half_width = student_interval.mean - student_interval.low
    to_low, to_high = student_interval.mean - bounds.low, bounds.high - student_interval.mean
    if to_low == to_high == inf:
        return student_interval
    if to_high == inf:
        factor = exp(min(half_width / to_low, 700.0))
        return student_interval._replace(
            low=bounds.low + to_low / factor, high=bounds.low + to_low * factor
        )
    if to_low == inf:
        factor = exp(min(half_width / to_high, 700.0))
        return student_interval._replace(
            low=bounds.high - to_high * factor, high=bounds.high - to_high / factor
        )
    bounds_range = bounds.high - bounds.low
    mean_logit = float(logit(to_low / bounds_range))
    logit_half_width = half_width * bounds_range / (to_low * to_high)
    low, high = (
        bounds.low + bounds_range * float(expit(mean_logit + sign * logit_half_width))
        for sign in (-1, 1)
    )
    return student_interval._replace(low=low, high=high)


def describe_method(bounds: Bounds) -> str:
    """Return the method of `estimate` for a metric with these bounds, in words for a caption."""
    num_bounds = sum(abs(bound) < inf for bound in bounds)
    scale_by_num_bounds = {0: "", 1: " on the log scale", 2: " on the logit scale"}
    return f"{CONFIDENCE:.0%} t-interval{scale_by_num_bounds[num_bounds]}".replace("%", " %")


def paired_estimate(
    group_values: Mapping[int, float], baseline_values: Mapping[int, float], bounds: Bounds = ANY
) -> Difference:
    """Return `paired_difference` for a reader: fewer than 3 pairs have no interval and no p value.

    The interval ends where a difference within the bounds must end; that is the t-interval all the
    same, so it excludes 0 where p is below .05.
    """
    difference = paired_difference(group_values, baseline_values)
    if difference.n < ENOUGH_SEEDS:
        return difference._replace(low=None, high=None, p=None)
    largest_difference = bounds.high - bounds.low
    if difference.mean is None or difference.low is None or difference.high is None:
        return difference
    if abs(difference.mean) > largest_difference:
        return difference
    return difference._replace(
        low=max(difference.low, -largest_difference),
        high=min(difference.high, largest_difference),
    )


def paired_difference(
    group_values: Mapping[int, float], baseline_values: Mapping[int, float]
) -> Difference:
    """Compare a group with a baseline on their common seeds: group minus baseline, seed by seed.

    Equal differences have no spread to test against: p is then 1 where they are 0, and 0 elsewhere.
    """
    seeds = sorted(group_values.keys() & baseline_values.keys())
    differences = [group_values[seed] - baseline_values[seed] for seed in seeds]
    sizes = [
        abs(value_by_seed[seed])
        for value_by_seed in (group_values, baseline_values)
        for seed in seeds
    ]
    # .997 - .994 and .998 - .995 differ by rounding alone, which is no spread.
    if np.ptp(differences or [0]) <= 4 * np.finfo(float).eps * max(sizes, default=0):
        differences = differences[:1] * len(differences)
    mean_difference = t_interval(differences)
    if mean_difference.mean is None or mean_difference.low is None:
        return Difference(*mean_difference, p=None)
    mean, error = _mean_and_error(differences)
    if not error:
        return Difference(*mean_difference, p=0.0 if mean else 1.0)
    return Difference(
        *mean_difference, p=2 * float(stdtr(len(differences) - 1, -abs(mean) / error))
    )


def holm_correction(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for multiple testing, so that they bound the family-wise error (Holm 1979).

    None stands for no test; it stays None and does not count.
    """
    ascending_p_values = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected_p_values = list(p_values)
    largest_p = 0.0
    for rank, (p, index) in enumerate(ascending_p_values):
        largest_p = max(largest_p, min(1.0, p * (len(ascending_p_values) - rank)))
        corrected_p_values[index] = largest_p
    return corrected_p_values


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; exactly 0 for equal values, None for one value."""
    if len(values) == 1:
        return float(values[0]), None
    if min(values) == max(values):
        return float(values[0]), 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
