"""Intervals and tests over seeds, against tables, closed forms and definitions."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnlab.analysis.statistics import (
    describe_method,
    estimate,
    holm_correction,
    paired_difference,
    paired_estimate,
    t_interval,
)
from attnlab.run_record.bounds import ANY, NOT_NEGATIVE, SHARE, Bounds
from tests.depth import examples

# Two-sided 95 % points of Student's t, as printed in textbooks.
TABLE = {2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262, 30: 2.045}


@pytest.mark.parametrize("n", TABLE)
def test_an_interval_reaches_as_far_as_the_printed_t_table(n):
    values = np.random.default_rng(n).normal(3.0, 0.2, n)
    estimate = t_interval(values.tolist())
    deviation = math.sqrt(sum((v - values.mean()) ** 2 for v in values) / (n - 1))
    assert estimate.n == n
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high == pytest.approx(values.mean() + TABLE[n] * deviation / n**0.5, rel=1e-4)
    assert estimate.low == pytest.approx(values.mean() - TABLE[n] * deviation / n**0.5, rel=1e-4)


def test_the_interval_of_three_values_follows_the_closed_form_of_two_degrees_of_freedom():
    # Deviation 1; t solves t / sqrt(2 + t^2) = .95.
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    low, high = 2 - t / math.sqrt(3), 2 + t / math.sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((3, 2.0, low, high), rel=1e-12)


def test_an_interval_over_three_seeds_holds_the_mean_95_times_in_100():
    draws = np.random.default_rng(0).normal(0.7, 0.1, (1500, 3)).tolist()
    intervals = [t_interval(draw) for draw in draws]
    held = np.mean([i.low <= 0.7 <= i.high for i in intervals])  # pyright: ignore
    # The standard error of the share is .006; a normal interval would hold it 81 times in 100.
    assert held == pytest.approx(0.95, abs=0.018)


def test_one_value_has_a_mean_and_no_interval():
    assert t_interval([0.25]) == (1, 0.25, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([0.1, 0.1, 0.1]) == (3, 0.1, 0.1, 0.1)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_no_number_has_no_mean(odd):
    assert t_interval([0.1, odd]) == (2, None, None, None)


def test_the_p_value_of_three_pairs_follows_the_closed_form():
    difference = paired_difference({0: 1.5, 1: 2.0, 2: 4.0}, {0: 0.5, 1: 0.0, 2: 1.0})
    t = 2 / (1 / math.sqrt(3))
    assert difference.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)
    assert difference[:4] == pytest.approx(t_interval([1.0, 2.0, 3.0]))


def test_the_p_value_of_two_pairs_follows_the_closed_form():
    difference = paired_difference({3: 1.0, 5: 4.0}, {3: 0.0, 5: 1.0})
    assert difference.p == pytest.approx(1 - 2 / math.pi * math.atan(2.0), rel=1e-12)


def test_a_pair_is_two_values_of_one_seed_whatever_the_order():
    ours, theirs = {2: 0.9, 0: 0.5, 1: 0.7, 7: 0.1}, {0: 0.4, 1: 0.5, 2: 0.6, 8: 0.9}
    difference = paired_difference(ours, theirs)
    assert difference.n == 3
    assert difference.mean == pytest.approx((0.1 + 0.2 + 0.3) / 3)


def test_pairing_removes_what_the_seeds_share():
    shared = {seed: float(value) for seed, value in enumerate(np.linspace(0.1, 0.8, 5))}
    noise = [0.001, -0.001, 0.0, 0.002, -0.002]
    ours = {seed: value + 0.01 + noise[seed] for seed, value in shared.items()}
    difference, alone = paired_difference(ours, shared), t_interval(list(ours.values()))
    assert difference[1:4] == pytest.approx(t_interval([0.01 + n for n in noise])[1:])
    assert difference.low > 0 > difference.mean - (alone.high - alone.mean)  # pyright: ignore


def test_swapping_the_two_turns_the_difference_round():
    ours, theirs = {0: 0.3, 1: 0.9, 2: 0.4}, {0: 0.2, 1: 0.5, 2: 0.6}
    forward, backward = paired_difference(ours, theirs), paired_difference(theirs, ours)
    turned = (backward.n, -backward.mean, -backward.high, -backward.low, backward.p)  # pyright: ignore
    assert forward == pytest.approx(turned)


def test_no_difference_at_any_seed_is_zero_with_p_one():
    values = {0: 0.3, 1: 0.9, 2: 0.4}
    assert paired_difference(values, values) == (3, 0.0, 0.0, 0.0, 1.0)


def test_the_same_difference_at_every_seed_is_exact_even_where_floats_round():
    theirs, ours = {0: 0.8, 1: 0.7, 2: 0.1}, {0: 0.9, 1: 0.8, 2: 0.2}
    assert len({ours[seed] - theirs[seed] for seed in ours}) > 1
    difference = paired_difference(ours, theirs)
    assert difference.low == difference.mean == difference.high == pytest.approx(0.1)
    assert difference.p == 0


@pytest.mark.parametrize(("theirs", "n", "mean"), [({0: 0.1}, 1, 0.2), ({9: 0.1}, 0, None)])
def test_fewer_than_two_pairs_are_no_test(theirs, n, mean):
    difference = paired_difference({0: 0.3, 1: 0.4}, theirs)
    assert (difference.n, difference.low, difference.high, difference.p) == (n, None, None, None)
    assert difference.mean == (None if mean is None else pytest.approx(mean))


@examples(30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_bonferroni_on_every_subset_that_a_hypothesis_is_in(p_values):
    """The closed test that Holm's procedure shortens (Marcus, Peritz and Gabriel 1976)."""
    at = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in combinations(at, size)]
    expected = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in at
    ]
    assert holm_correction(p_values) == pytest.approx(expected)


def test_holm_leaves_out_what_was_not_tested():
    assert holm_correction([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm_correction([]) == []


@examples(50)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=6))
def test_an_estimate_is_inside_the_bounds_and_holds_the_mean(values):
    for bounds in (SHARE, NOT_NEGATIVE, Bounds(-math.inf, 1), Bounds(-1, 2)):
        found = estimate(values, bounds)
        assert found.mean == t_interval(values).mean
        slack = 1e-9
        assert bounds.low - slack <= found.low <= found.mean + slack  # pyright: ignore
        assert found.mean - slack <= found.high <= bounds.high + slack  # pyright: ignore


def test_an_estimate_with_little_spread_is_the_t_interval():
    values = [0.501, 0.5, 0.499]
    for bounds in (SHARE, NOT_NEGATIVE):
        assert tuple(estimate(values, bounds)) == pytest.approx(tuple(t_interval(values)), abs=1e-4)
    assert estimate(values, ANY) == t_interval(values)


def test_the_logit_interval_follows_its_closed_form():
    values = [0.9, 0.95, 0.97]
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(3)
    half_width = 4.302652729911275 * error / (mean * (1 - mean))
    ends = [1 / (1 + math.exp(-(math.log(mean / (1 - mean)) + s * half_width))) for s in (-1, 1)]
    assert estimate(values, SHARE)[2:] == pytest.approx(ends, rel=1e-9)
    half_width = 4.302652729911275 * error / mean
    ends = [mean * math.exp(s * half_width) for s in (-1, 1)]
    assert estimate(values, NOT_NEGATIVE)[2:] == pytest.approx(ends, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_values_have_an_estimate_of_no_width_at_a_bound_too(value):
    assert estimate([value] * 3, SHARE) == (3, value, value, value)


def test_values_outside_of_the_stated_bounds_have_the_plain_t_interval():
    assert estimate([0.5, 1.2, 0.9], SHARE) == t_interval([0.5, 1.2, 0.9])


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.7]])
def test_fewer_than_three_values_have_no_estimate_of_their_spread(values):
    assert estimate(values, SHARE) == (len(values), np.mean(values), None, None)


def test_a_difference_for_a_reader_ends_where_it_must_and_needs_three_pairs():
    ours, theirs = {0: 1.0, 1: 0.9, 2: 0.1}, {0: 0.0, 1: 0.3, 2: 0.05}
    plain, shown = paired_difference(ours, theirs), paired_estimate(ours, theirs, SHARE)
    assert plain.high > 1  # pyright: ignore
    assert shown == plain._replace(high=1.0, low=max(plain.low, -1.0))  # pyright: ignore
    assert paired_estimate(ours, theirs) == plain
    few = paired_estimate({0: 1.0, 1: 0.9}, theirs, SHARE)
    assert (few.n, few.low, few.high, few.p) == (2, None, None, None)


def test_the_method_is_said_for_each_kind_of_bounds():
    assert [describe_method(bounds) for bounds in (SHARE, NOT_NEGATIVE, ANY)] == [
        "95 % t-interval on the logit scale",
        "95 % t-interval on the log scale",
        "95 % t-interval",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(
    ("bounds", "draw", "mean"),
    [
        (SHARE, lambda random, n: random.beta(396, 4, n), 0.99),
        (SHARE, lambda random, n: random.beta(4, 1, n), 0.8),
        (SHARE, lambda random, n: random.beta(1, 1, n), 0.5),
        (NOT_NEGATIVE, lambda random, n: np.exp(random.normal(0, 0.2, n)), math.exp(0.02)),
    ],
    ids=["near the bound", "wide", "uniform", "loss"],
)
def test_an_estimate_holds_the_mean_95_times_in_100(bounds, draw, mean, n):
    random = np.random.default_rng(n)
    estimates = [estimate(draw(random, n).tolist(), bounds) for _ in range(4000)]
    held = np.mean([e.low <= mean <= e.high for e in estimates])  # pyright: ignore
    # The standard error of the share is .0035; the plain interval of "wide" holds it 91 in 100.
    assert held == pytest.approx(0.95, abs=0.018)
