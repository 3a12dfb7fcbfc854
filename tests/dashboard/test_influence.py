"""Shares by distance are sums of the recorded weights, the same for models of every kind."""

import numpy as np
import pytest

from attnlab.analysis.influence_report import (
    InfluenceReport,
    distance_bins,
    influence_report,
    shares_by_distance,
)
from attnlab.analysis.run_list import list_runs
from attnlab.analysis.select import drop_damaged
from attnlab.layers import AttentionLayer, Axes
from attnlab.run_record.pattern_table import ERROR, Pattern, PatternWeights, load_patterns
from attnlab.run_record.record import Record, find_runs
from tests.dashboard.recorded import ask, recorded


def pattern(weights: np.ndarray, queries: list[int]) -> Pattern:
    layer = AttentionLayer(0, "a", len(weights), Axes())
    tokens = list(map(str, range(weights.shape[-1])))
    return Pattern(0, "p", layer, tokens, queries, queries[-1], PatternWeights(weights))


def report(path) -> InfluenceReport:
    return influence_report(drop_damaged(list_runs(find_runs(path)).selection))[0]


def test_bins_double_and_hold_each_distance_once():
    weights = np.full((1, 1, 12), 1 / 12, np.float32)
    bins = distance_bins([pattern(weights, [9])])
    assert [bin_.name for bin_ in bins] == [
        *("2 ahead", "1 ahead", "0", "1", "2", "3-4", "5-8", "9")
    ]
    covered = [at for bin_ in bins for at in range(bin_.low, bin_.high + 1)]
    assert covered == [-2, -1, *range(10)]


def test_a_causal_model_has_nothing_ahead():
    weights = np.tril(np.ones((1, 5, 5), np.float32))
    weights /= weights.sum(-1, keepdims=True)
    bins = distance_bins([pattern(weights, list(range(5)))])
    assert bins[0].name == "0"


def test_shares_sum_to_one_and_are_the_weights_of_their_distances():
    weights = np.zeros((1, 1, 5), np.float32)
    weights[0, 0] = [0.4, 0.3, 0.2, 0.1, 0]
    only = pattern(weights, [3])
    bins = distance_bins([only])
    shares = shares_by_distance([only], bins)
    assert [bin_.name for bin_ in bins] == ["0", "1", "2", "3"]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=ERROR)


def test_rows_that_read_nothing_do_not_count():
    weights = np.zeros((2, 1, 3), np.float32)
    weights[1, 0, 0] = 0.5
    only = pattern(weights, [2])
    shares = shares_by_distance([only], distance_bins([only]))
    assert shares == pytest.approx([0, 0, 1])
    assert shares_by_distance([pattern(weights[:1], [2])], distance_bins([only])) is None


def test_every_kind_of_model_has_the_influence_and_layers_only_where_they_are_recorded(tmp_path):
    for variant in ("multihead", "linear", "lstm"):
        for seed in range(3):
            recorded(tmp_path, variant, seed)
    arms = report(tmp_path).arms
    assert len(arms) == 3
    kinds = {arm.runs[0].split("-")[1]: [layer.kind for layer in arm.layers] for arm in arms}
    assert kinds == {"multihead": ["attention"], "linear": ["mixing"], "lstm": []}
    for arm in arms:
        assert arm.influence is not None
        means = [share.mean for share in arm.influence.shares]
        assert sum(mean or 0 for mean in means) == pytest.approx(1)
        assert all(share.n == 3 and share.low is not None for share in arm.influence.shares)
    (lstm,) = [arm for arm in arms if arm.gates]
    assert lstm.gates["layer0/time"].mean == pytest.approx(5)


def test_the_influence_is_that_of_the_last_step_by_distance(tmp_path):
    path = recorded(tmp_path, "lstm")
    last = load_patterns(Record(path), 20)[0]
    (arm,) = report(tmp_path).arms
    assert arm.influence is not None
    weights = last.weights[0, 0] / last.weights[0, 0].sum()
    means = [share.mean for share in arm.influence.shares]
    expected = [weights[5], weights[4], weights[3], weights[1] + weights[2], weights[0]]
    assert means == pytest.approx(expected)


def test_runs_on_other_sequences_are_left_out_and_named(tmp_path):
    recorded(tmp_path, "multihead", 0)
    recorded(tmp_path, "lstm", 1, tokens=list("abcdef"))
    made = report(tmp_path)
    assert [arm.runs for arm in made.arms] == [["mqar-lstm-1x64-s1"]]
    assert [run.run for run in made.left_out] == ["mqar-multihead-1x64-s0"]


def test_the_page_says_how_gates_are_recorded_where_none_are(tmp_path):
    recorded(tmp_path, "lstm", findings={})
    assert "attnlab train variant=lstm evidence=gates" in ask(tmp_path).get("/influence").text
    recorded(tmp_path, "lstm", 1)
    page = ask(tmp_path).get("/influence?run=mqar-lstm-1x64-s1").text
    assert "layer0/time" in page
    assert "evidence=gates" not in page
