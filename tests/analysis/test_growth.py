"""How costs grow with the length: exactly, where they are powers of it."""

import math

import numpy as np
import pytest

from attnlab.analysis.growth import fit_exponent, fit_growth
from attnlab.measure import NUM_TOKENS, MeasuredArm, measure
from attnlab.model.base import DECODER
from tests.test_measure import Clock, slow


def test_the_exponent_is_that_of_the_time_of_one_sequence():
    clock = Clock()
    arms = [slow(clock, "linear", 1), slow(clock, "square", 2)]
    modes = ["forward", "backward", "decode"]
    cells = list(measure(arms, [4, 8, 16, 32, 64], modes, tokens=32, rounds=2, clock=clock))
    for mode in modes:
        for name, power in (("linear", 1), ("square", 2)):
            found = fit_growth([c for c in cells if (c.arm, c.mode) == (name, mode)]).time
            assert found is not None
            assert found == pytest.approx((power, 0), abs=1e-6)


def test_a_fit_is_that_of_numpy_with_its_standard_error():
    random = np.random.default_rng(0)
    lengths = [512, 1024, 2048, 4096, 8192]
    values = [3.0 * n**1.3 * math.exp(random.normal(0, 0.1)) for n in lengths]
    found = fit_exponent(lengths, values)
    slope, covariance = np.polyfit(np.log(lengths), np.log(values), 1, cov=True)
    assert found is not None
    assert found == pytest.approx((slope[0], covariance[0, 0] ** 0.5))


def test_two_lengths_have_no_error_and_one_has_no_exponent():
    assert fit_exponent([2, 4], [1.0, 8.0]) == pytest.approx((3.0, None))
    assert fit_exponent([2], [1.0]) is None


def test_memory_of_a_recurrence_is_linear_and_that_of_explicit_attention_is_not(composed):
    def memory(mixer: str) -> float:
        words = (f"model/mixer={mixer}", "model/ffn=none", "model.d_model=16", "model.num_layers=1")
        model = composed(*words).build("model", NUM_TOKENS, NUM_TOKENS, 256, DECODER)
        cells = list(measure([MeasuredArm("", model)], [64, 128, 256], ["backward"], 256, rounds=1))
        found = fit_growth(cells).memory
        assert found is not None
        return found.value

    assert memory("min_lstm") == pytest.approx(1, abs=0.02)
    # Its scores pass through d_model hidden units each.
    assert memory("additive") > 1.8
