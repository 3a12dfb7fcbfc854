"""Shares of variance are those of a textbook, and lines are the groups of a key."""

from itertools import product

import numpy as np
import pytest

from attnlab.analysis.compare import compare
from attnlab.analysis.factors import factor_lines, importance, numeric_keys, parallel_axes
from tests.fabricated import result


def panel(value_of, seeds=(0, 1), leave_out=()):
    results = {
        f"{variant}-{num_layers}-{seed}": result(
            variant,
            num_layers,
            seed,
            metrics={"test/accuracy": float(value_of(variant, num_layers, seed))},
        )
        for variant in ("vanilla", "lstm")
        for num_layers in (1, 2, 4)
        for seed in seeds
        if (variant, num_layers) not in leave_out
    }
    return compare(results, metric="test/accuracy")[0]


def test_shares_of_an_additive_metric_are_the_squares_of_its_effects():
    variant_effect, layer_effect = {"vanilla": -0.1, "lstm": 0.1}, {1: -0.03, 2: 0.0, 4: 0.03}
    found = importance(
        panel(lambda v, n, seed: 0.5 + variant_effect[v] + layer_effect[n] + 0.02 * (seed - 0.5))
    )
    assert found is not None
    squares = {"variant": 0.1**2, "num_layers": np.mean([0.03**2, 0, 0.03**2]), "seeds": 0.01**2}
    total = sum(squares.values())
    shares = {share.factor: share.share for share in found.shares}
    assert shares == {k: pytest.approx(squares[k] / total) for k in ("variant", "num_layers")}
    assert next(iter(shares)) == "variant"
    assert found.interactions == pytest.approx(0, abs=1e-12)
    assert found.seeds == pytest.approx(squares["seeds"] / total)
    assert found.num_runs == 12


def test_shares_and_interactions_and_seeds_sum_to_one_on_a_balanced_grid():
    random = np.random.default_rng(0)
    values = {cell: random.uniform() for cell in product(("vanilla", "lstm"), (1, 2, 4), (0, 1))}
    found = importance(panel(lambda *cell: values[cell]))
    assert found is not None
    assert found.interactions is not None
    assert found.interactions > 0.01
    total = sum(share.share for share in found.shares) + found.interactions + found.seeds
    assert total == pytest.approx(1)


def test_without_a_balanced_grid_no_interaction_is_claimed():
    found = importance(panel(lambda v, n, s: n / 10 + s / 100, leave_out=[("lstm", 4)]))
    assert found is not None
    assert found.interactions is None


def test_an_equal_metric_or_a_single_key_has_no_importance():
    assert importance(panel(lambda *_: 0.5)) is None
    assert (
        importance(panel(lambda *cell: cell[2], leave_out=[("lstm", n) for n in (1, 2, 4)])) is None
    )


def test_lines_are_the_groups_of_one_value_of_the_other_keys_the_best_first():
    of = panel(lambda v, n, s: (0.5 if v == "lstm" else 0.3) + n / 100 + s / 1000)
    assert numeric_keys(of) == ["num_layers"]
    best, other = factor_lines(of, "num_layers")
    assert (best.title, other.title) == ("lstm", "vanilla")
    assert [x for x, _ in best.groups] == [1, 2, 4]
    assert [g.over_seeds("test/accuracy").mean for _, g in best.groups] == pytest.approx(
        [0.5105, 0.5205, 0.5405]
    )


def test_axes_have_each_groups_value_and_words_their_levels():
    of = panel(lambda v, n, s: n / 10)
    axes = {axis["title"]: axis for axis in parallel_axes(of, {"seconds": "time"})}
    variants = axes["variant"]
    assert [variants["levels"][place] for place in variants["values"]] == [
        group.keys["variant"] for group in of.groups
    ]
    assert axes["num_layers"]["levels"] == ["1", "2", "4"]
    assert axes["test/accuracy"]["values"] == pytest.approx(
        [group.keys["num_layers"] / 10 for group in of.groups]
    )
