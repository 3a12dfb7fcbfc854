"""Heads are matched between seeds before anything is averaged, and named by their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy import stats
from scipy.spatial.distance import jensenshannon

from attnlab.analysis.head_matching import head_distances, match_heads, match_runs
from attnlab.analysis.head_roles import ROLES, assign_roles, first_role_step
from attnlab.interp.pattern_stats import PatternRows, measure_rows
from attnlab.layers import AttentionLayer, Axes
from attnlab.run_record import head_scores as heads
from attnlab.run_record import pattern_table
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from attnlab.run_record.record import Record
from tests.fabricated import state_layers
from tests.prose import refuses

LAYERS = tuple(AttentionLayer(at, f"blocks.{at}.mixer.attend", 4, Axes()) for at in (0, 1))
TOKENS = ["the", "cat", "sat", "on", "."]


def pattern(weights: Float[np.ndarray, "head query key"], **fields) -> Pattern:
    about = {"step": 9, "probe": "a", "layer": LAYERS[0], "tokens": TOKENS}
    about |= {"query_at": list(range(weights.shape[1])), "answer_position": 4, **fields}
    return Pattern(data=PatternWeights(weights.astype(np.float32)), **about)


def drawn(*key: int, heads: int = 4) -> Float[np.ndarray, "head query key"]:
    return np.random.default_rng(key).dirichlet(np.full(5, 0.3), (heads, 5))


def written(
    path: Path,
    weights: Mapping[AttentionLayer, Float[np.ndarray, "head query key"]],
    measures: Mapping[str, Sequence[float]],
    steps: Sequence[int] = (9,),
) -> Record:
    attempt = Attempt.claim(path, {"seed": 0})
    state_layers(attempt.path, Layers(list(weights)))
    for step in steps:
        for layer, of_layer in weights.items():
            for probe in ("a", "b"):
                row = pattern(of_layer, step=step, probe=probe, layer=layer).to_row()
                attempt.append(pattern_table.TABLE, [row])
            for name, values in measures.items():
                attempt.append(heads.TABLE, [heads.measure_row(step, layer, name, values)])
        share = pattern(np.full((1, 1, 5), 0.2), step=step, layer=None, query_at=[4])
        attempt.append(pattern_table.TABLE, [share.to_row()])
    attempt.close()
    return Record(path)


def test_a_distance_is_the_mean_of_jensen_shannon_over_all_queries_of_all_probes():
    one, other = [drawn(0), drawn(1)[:, :2]], [drawn(2), drawn(3)[:, :2]]
    found = head_distances(
        [pattern(one[0]), pattern(one[1], probe="b")],
        [pattern(other[1], probe="b"), pattern(other[0])],
    )
    for mine in range(4):
        for its in range(4):
            rows = [
                jensenshannon(a[mine].T, b[its].T, base=2) for a, b in zip(one, other, strict=True)
            ]
            assert float(found[mine, its]) == pytest.approx(np.concatenate(rows).mean(), abs=1e-4)


def test_distances_are_symmetric_and_0_between_copies():
    one, other = [pattern(drawn(0))], [pattern(drawn(1))]
    assert torch.equal(head_distances(one, other), head_distances(other, one).T)
    assert head_distances(one, one).diagonal().tolist() == [0, 0, 0, 0]
    assert (head_distances(one, one) + torch.eye(4) > 0).all()


def test_only_probes_of_the_same_tokens_are_compared():
    same, words = drawn(0), ["a", "cat", "sat", "on", "."]
    others = [pattern(drawn(1), probe="b"), pattern(drawn(2), probe="c", tokens=words)]
    mine = [pattern(same), pattern(drawn(3), probe="c")]
    assert torch.equal(
        head_distances(mine, [pattern(same), *others]), head_distances(mine[:1], mine[:1])
    )
    read = [pattern(drawn(4), probe="d", query_tokens=list(said)) for said in ("abcde", "abcdf")]
    assert torch.equal(
        head_distances([*mine, read[0]], [pattern(same), read[1]]),
        head_distances(mine[:1], mine[:1]),
    )
    with refuses(ValueError, "evidence.seeds.no_probe"):
        head_distances(mine, [*others, *read])


def test_the_records_rounding_makes_no_row_more_or_less_than_whole():
    # Each of 3 equal weights is kept as a little less than a third.
    tokens, weights = list("abcd"), np.zeros((2, 1, 4))
    weights[0, 0, :3], weights[1, 0, 3] = 1 / 3, 1
    read = Pattern.from_row(pattern(weights, tokens=tokens).to_row(), Layers(LAYERS))
    assert abs(read.weights[0].sum() - 1) > 1e-3
    expected = [[0, pytest.approx(1, abs=1e-6)], [pytest.approx(1, abs=1e-6), 0]]
    assert head_distances([read], [read]).tolist() == expected


def test_no_permutation_costs_less_than_the_match():
    for size, key in product((1, 2, 3, 4), range(8)):
        cost = np.random.default_rng([size, key]).random((size, size))
        of = match_heads(torch.tensor(cost))
        least = min(
            sum(cost[row, column] for row, column in enumerate(order))
            for order in permutations(range(size))
        )
        assert sorted(of.tolist()) == list(range(size))
        assert cost[np.arange(size), of].sum() == pytest.approx(least, abs=1e-12)


def test_a_copy_with_its_heads_in_another_order_is_put_back(tmp_path):
    weights = {layer: drawn(at) for at, layer in enumerate(LAYERS)}
    values = np.array([0.1, 0.2, 0.3, 0.4])
    orders = ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0])
    records = [
        written(
            tmp_path / str(at),
            {layer: of_layer[order] for layer, of_layer in weights.items()},
            {"previous": values[order].tolist()},
        )
        for at, order in enumerate(orders)
    ]
    found = match_runs(records)
    assert (found.reference, found.step, found.measured_step) == (0, 9, 9)
    assert tuple(matched_layer.layer for matched_layer in found.layers) == LAYERS
    for layer in found.layers:
        for order, of in zip(orders, layer.heads, strict=True):
            assert [order[head] for head in of] == [0, 1, 2, 3]
        assert layer.distances.tolist() == [0, 0, 0, 0]
        assert layer.chance > 0.1
        for value, over in zip(values, layer.measures["previous"], strict=True):
            assert over == (3, value, value, value)


def test_means_and_intervals_are_of_the_matched_heads(tmp_path):
    base = drawn(0)
    orders, random = ([1, 0, 3, 2], [0, 1, 2, 3], [3, 1, 0, 2]), np.random.default_rng(1)
    scores = random.random((3, 4))
    scores[2, 0] = np.nan
    records = []
    for at, order in enumerate(orders):
        weights = 0.9 * base + 0.1 * drawn(5, at)
        records.append(
            written(tmp_path / str(at), {LAYERS[0]: weights[order]}, {"sink": scores[at].tolist()})
        )
    # Which head is which is known here: apart[i, j] has the distances of the same heads of i and j.
    apart = np.array(
        [
            [
                head_distances(_at(one), _at(other)).numpy()[np.argsort(mine), np.argsort(its)]
                for other, its in zip(records, orders, strict=True)
            ]
            for one, mine in zip(records, orders, strict=True)
        ]
    )
    found = match_runs(records)
    (layer,) = found.layers
    assert found.reference == apart.sum(axis=(1, 2)).argmin()
    others = [at for at in range(3) if at != found.reference]
    for head, same in enumerate(orders[found.reference]):
        places = [order.index(same) for order in orders]
        assert layer.heads[:, head].tolist() == places
        assert layer.distances[head] == pytest.approx(apart[found.reference, others, same].mean())
        mine = [scores[at, place] for at, place in enumerate(places)]
        n, mean, low, high = layer.measures["sink"][head]
        assert n == 3
        if np.isnan(mine).any():
            assert mean is None
            continue
        assert mean == pytest.approx(np.mean(mine))
        expected = stats.t.interval(0.95, 2, loc=np.mean(mine), scale=stats.sem(mine))
        assert (low, high) == pytest.approx(expected)


def _at(record: Record) -> list[Pattern]:
    return [p for p in pattern_table.load_patterns(record, 9) if p.layer is not None]


def test_the_order_of_the_runs_moves_no_match(tmp_path):
    records = [
        written(tmp_path / str(at), {LAYERS[0]: drawn(at)}, {"sink": [0.1 * at, 0.2, 0.3, 0.4]})
        for at in range(3)
    ]
    one, other = match_runs(records), match_runs(records[::-1])
    assert other.reference == 2 - one.reference
    (mine,), (its,) = one.layers, other.layers
    assert mine.layer == its.layer == LAYERS[0]
    assert mine.heads.tolist() == its.heads[::-1].tolist()
    np.testing.assert_allclose(mine.distances, its.distances)
    assert mine.distances.mean() < mine.chance
    assert mine.chance == pytest.approx(its.chance)


def test_the_reference_is_least_apart_over_all_layers(tmp_path):
    ends = drawn(0), drawn(1)
    # Between the others lies the first run in the lower layer; in the upper, wider one, the last.
    records = [
        written(
            tmp_path / str(at),
            {of: (1 - t) * ends[0] + t * ends[1] for of, t in zip(LAYERS, shares, strict=True)},
            {"sink": [0.1] * 4},
        )
        for at, shares in enumerate([(0.5, 0), (0.4, 1), (0.6, 0.5)])
    ]
    assert match_runs(records).reference == 2


def test_measures_are_those_of_the_last_step_at_which_all_measured(tmp_path):
    records = []
    for at, steps in enumerate([(0, 9, 20, 30), (0, 9, 20)]):
        attempt = Attempt.claim(tmp_path / str(at), {"seed": at})
        state_layers(attempt.path, Layers(LAYERS[:1]))
        attempt.append(pattern_table.TABLE, [pattern(drawn(0)).to_row()])
        for step in steps:
            attempt.append(
                heads.TABLE, [heads.measure_row(step, LAYERS[0], "sink", [step / 100] * 4)]
            )
        attempt.close()
        records.append(Record(tmp_path / str(at)))
    found = match_runs(records)
    assert (found.step, found.measured_step) == (9, 20)
    (layer,) = found.layers
    means = [over.mean for over in layer.measures["sink"]]
    assert means == pytest.approx([0.2] * 4)


def test_runs_are_matched_at_the_last_step_that_they_share(tmp_path):
    one = written(tmp_path / "a", {LAYERS[0]: drawn(0)}, {"sink": [0.1] * 4}, steps=(0, 9, 20))
    other = written(tmp_path / "b", {LAYERS[0]: drawn(0)}, {"sink": [0.2] * 4}, steps=(0, 9, 15))
    found = match_runs([one, other])
    assert (found.step, found.measured_step) == (9, 9)
    late = written(tmp_path / "c", {LAYERS[0]: drawn(0)}, {"sink": [0.2] * 4}, steps=(1,))
    with refuses(ValueError, "evidence.seeds.no_step", tmp_path):
        match_runs([one, late])


def test_a_run_without_patterns_is_named(tmp_path):
    one = written(tmp_path / "a", {LAYERS[0]: drawn(0)}, {"sink": [0.1] * 4})
    attempt = Attempt.claim(tmp_path / "b", {"seed": 1})
    state_layers(attempt.path, Layers(LAYERS[:1]))
    attempt.append(heads.TABLE, [heads.measure_row(9, LAYERS[0], "sink", [0.1] * 4)])
    attempt.close()
    with refuses(ValueError, "evidence.seeds.no_patterns", tmp_path):
        match_runs([one, Record(tmp_path / "b")])


def test_what_cannot_be_matched_is_refused(tmp_path):
    four = written(tmp_path / "a", {LAYERS[0]: drawn(0)}, {"sink": [0.1] * 4})
    with refuses(ValueError, "evidence.seeds.one_run"):
        match_runs([four])
    for name, layer, count, scores in (
        ("no_measures", LAYERS[0], 4, {}),
        ("layers", LAYERS[1], 4, {"sink": [0.1] * 4}),
        ("patterns_of_some", LAYERS[0], 2, {"sink": [0.1] * 4}),
        ("unequal", replace(LAYERS[0], num_heads=2), 2, {"sink": [0.1] * 2}),
    ):
        other = written(tmp_path / name, {layer: drawn(1, heads=count)}, scores)
        with refuses(ValueError, f"evidence.seeds.{name}", tmp_path):
            match_runs([four, other])


def test_a_head_is_named_by_what_is_above_its_threshold_the_highest_first():
    assert assign_roles({"previous": 0.5, "prefix_matching": float("nan"), "sink": None}) == []
    found = assign_roles({"previous": 0.6, "prefix_matching": 0.9, "normalised_entropy": 0.2})
    assert [role.name for role in found] == ["induction", "previous token"]
    assert [role.name for role in assign_roles({"sink": 0.63, "normalised_entropy": 0.95})] == [
        "broad"
    ]
    assert assign_roles({"normalised_entropy": 0.9}) == []


def test_each_role_is_the_name_of_a_head_that_does_it():
    at = torch.arange(16)
    even, looks = torch.full((16, 16), 1 / 16), torch.eye(16)
    behind = [torch.cat([even[:4], looks[4 - back : 16 - back]]) for back in (4, 3)]
    previous, following = looks[(at - 1).clamp(min=0)], looks[(at + 1).clamp(max=15)]
    done = [previous, looks, following, *behind, looks[at * 0], even]
    every = torch.ones(1, 16, dtype=torch.bool)
    found = measure_rows(PatternRows(torch.stack(done)[None], every, every, at, (at % 4)[None]))
    for head, role in enumerate(ROLES):
        scores = {
            name: float(one.values[0, head, one.counted[0]].mean()) for name, one in found.items()
        }
        assert assign_roles(scores) == [role]


def test_a_head_has_its_name_since_it_stays_above_the_threshold():
    steps = np.array([0, 10, 20, 30])
    values = np.array([[0.1, 0.9], [0.7, 0.2], [0.4, 0.6], [0.8, 0.7]])
    (role,) = assign_roles({"previous": 0.8})
    assert [first_role_step(role, (steps, values), head) for head in (0, 1)] == [30, 20]
