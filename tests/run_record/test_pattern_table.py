"""Patterns are read back as they were recorded, within the stated error and size."""

from dataclasses import replace
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attnlab.layers import AttentionLayer, Axes, MixingLayer
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import (
    ERROR,
    INFLUENCE,
    TABLE,
    Pattern,
    PatternWeights,
    load_patterns,
    probe_names,
)
from attnlab.run_record.record import Record
from tests.depth import examples
from tests.fabricated import state_layers
from tests.refused_calls import refused_calls

WEIGHTS = arrays(np.float32, (2, 3, 5), elements=st.floats(0, 1, width=32))


LAYER = AttentionLayer(0, "blocks.0", 2, Axes())
MIXING = MixingLayer(0, "blocks.1.mixer", "blocks.1.mixer.mixing", 2, Axes(), is_linear=True)
LAYERS = Layers([LAYER], [MIXING])


def coded(weights: np.ndarray) -> np.ndarray:
    """Give weights as the bytes of the record have them."""
    return PatternWeights(codes=PatternWeights(weights).codes).exact


@examples(40)
@given(WEIGHTS)
def test_a_weight_is_read_back_within_the_stated_error(weights):
    assert np.abs(coded(weights) - weights).max() <= ERROR


def test_small_weights_keep_their_digits():
    small = np.linspace(0, 0.01, 1000, dtype=np.float32)[None, None]
    assert np.abs(coded(small) - small).max() <= 0.0004
    assert (coded(np.array([[[0, 1]]], np.float32)) == [0, 1]).all()


def test_what_is_no_weight_is_refused():
    wrong = {"below_0": -0.5, "above_1": 1.5, "nan": np.nan, "inf": np.inf}
    weights = {name: np.array([[[0.5, value]]], np.float32) for name, value in wrong.items()}
    calls = {
        name: partial(getattr, PatternWeights(array), "codes") for name, array in weights.items()
    }
    refused_calls("runs.patterns.{}", calls)


def pattern(step: int, probe: str, seed: int = 0) -> Pattern:
    weights = np.random.default_rng(seed).dirichlet(np.ones(4), (2, 4)).astype(np.float32)
    tokens = ["the", "</script>", " ", "\u00e9"]
    return Pattern(step, probe, LAYER, tokens, [0, 1, 2, 3], 3, PatternWeights(weights))


def test_a_weight_that_is_rounded_to_more_than_1_is_1():
    weights = np.array([[[1 + 5e-6, 0]]], np.float32)
    assert weights.max() > 1
    assert coded(weights).tolist() == [[[1, 0]]]


def test_who_looks_and_which_heads_were_kept_are_read_back():
    full = pattern(4, "a")
    assert (full.numbers, list(full.queries)) == (range(2), list(full.tokens))
    some = PatternWeights(full.weights[:, [2, 0]])
    few = replace(full, query_at=[2, 0], data=some).select_heads([1])
    read = Pattern.from_row(few.to_row(), LAYERS)
    assert (list(read.numbers), list(read.queries)) == ([1], [" ", "the"])
    assert read.query_tokens is None
    assert np.abs(read.weights - full.weights[1:, [2, 0]]).max() <= ERROR
    across = Pattern.from_row(replace(full, query_tokens=list("wxyz")).to_row(), LAYERS)
    assert (list(across.queries), list(across.tokens)) == (list("wxyz"), list(full.tokens))
    # A record of an earlier version has neither column.
    old = {
        name: value for name, value in full.to_row().items() if name not in ("numbers", "reading")
    }
    assert list(Pattern.from_row(old, LAYERS).numbers) == [0, 1]
    assert list(Pattern.from_row(old, LAYERS).queries) == list(full.tokens)


def test_weights_of_what_mixes_and_influence_are_no_attention():
    of_layers = [replace(pattern(0, "a"), layer=layer) for layer in (LAYER, MIXING, None)]
    assert [one.source for one in of_layers] == [LAYER.source, MIXING.source, INFLUENCE]
    assert [one.attention for one in of_layers] == [LAYER, None, None]
    assert [one.mixing for one in of_layers] == [None, MIXING, None]
    for one in of_layers:
        assert Pattern.from_row(one.to_row(), LAYERS).layer == one.layer


def test_bytes_of_the_record_are_passed_on_as_they_are():
    full = pattern(0, "a")
    read = Pattern.from_row(full.to_row(), LAYERS)
    assert np.array_equal(read.codes, full.codes)
    assert read.to_row() == full.to_row()
    assert np.array_equal(read.select_heads([1]).codes, full.codes[1:])
    assert np.array_equal(read.select_heads([1, 0]).weights, read.weights[[1, 0]])


def test_a_row_that_cannot_be_is_refused():
    row = pattern(0, "a").to_row()
    wrong = {
        "layer": {"source": "blocks.7.pattern"},
        "numbers": {"numbers": [0]},
        "below_0": {"numbers": [0, -1]},
        "places": {"query_at": [0, 1, 2, -3]},
        "asked": {"asked_at": -1},
        "roles": {"roles": ["meant"]},
    }
    calls = {
        name: partial(Pattern.from_row, {**row, **part}, LAYERS) for name, part in wrong.items()
    }
    refused_calls("runs.patterns.read.{}", calls)


def test_patterns_are_read_back_from_the_record(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    state_layers(attempt.path, LAYERS)
    written = [pattern(s, p, s) for s in (0, 1, 10) for p in ("b", "a")]
    for at in range(0, 6, 2):
        attempt.append(TABLE, [one.to_row() for one in written[at : at + 2]])
    attempt.close()
    record = Record(tmp_path / "run")
    for one, other in zip(load_patterns(record), written, strict=True):
        for name in ("step", "probe", "layer", "tokens", "query_at", "answer_position"):
            assert getattr(one, name) == getattr(other, name), name
        assert np.abs(one.weights - other.weights).max() <= ERROR
    assert [p.probe for p in load_patterns(record, step=10)] == ["b", "a"]
    assert [p.step for p in load_patterns(record, probe="b")] == [0, 1, 10]
    assert load_patterns(record, step=2) == []
    assert probe_names(record) == ["b", "a"]


def test_a_run_without_patterns_has_none(tmp_path):
    Attempt.claim(tmp_path / "run", {"seed": 0}).close()
    assert load_patterns(Record(tmp_path / "run"), step=1, probe="a") == []
    assert probe_names(Record(tmp_path / "run")) == []


def test_six_layers_of_eight_heads_on_64_tokens_take_a_fifth_of_a_megabyte(tmp_path):
    draw = np.random.default_rng(0)
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    tokens, rows = [f"t{i}" for i in range(64)], []
    for layer in range(6):
        weights = draw.dirichlet(np.ones(64), (8, 64)).astype(np.float32)
        of_layer = AttentionLayer(layer, f"blocks.{layer}.mixer.attend", 8, Axes())
        exact = PatternWeights(weights)
        rows.append(Pattern(1, "a", of_layer, tokens, list(range(64)), 63, exact).to_row())
    attempt.append(TABLE, rows[:1])
    before = (attempt.path / f"{TABLE}.arrow").stat().st_size
    attempt.append(TABLE, rows)
    attempt.close()
    assert (attempt.path / f"{TABLE}.arrow").stat().st_size - before <= 200_000
