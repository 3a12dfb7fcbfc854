"""The drift of a head is read from what a run recorded."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy.spatial.distance import jensenshannon

from attnlab.analysis.head_drift import compute_drifts
from attnlab.layers import AttentionLayer, Axes
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import TABLE, Pattern, PatternWeights
from attnlab.run_record.record import Record
from tests.fabricated import state_layers
from tests.prose import refuses

LAYERS = [AttentionLayer(at, f"blocks.{at}.mixer.attend", 2, Axes()) for at in (0, 1)]
TOKENS = ["the", "cat", "sat", "."]


def row(step: int, weights: Float[np.ndarray, "head query key"], **fields) -> dict:
    about = {"probe": "a", "layer": LAYERS[0], "tokens": TOKENS, "query_at": [0, 1, 2, 3]}
    about |= {"answer_position": 3, **fields}
    return Pattern(step=step, data=PatternWeights(weights.astype(np.float32)), **about).to_row()


def distance(one: Float[np.ndarray, " key"], other: Float[np.ndarray, " key"]) -> float:
    return jensenshannon(one, other, base=2)


def written(path: Path, rows: list[dict]) -> Record:
    attempt = Attempt.claim(path / "run", {"seed": 0})
    state_layers(attempt.path, Layers(LAYERS))
    for one in rows:
        attempt.append(TABLE, [one])
    attempt.close()
    return Record(path / "run")


def test_a_head_that_stood_still_has_none_and_one_that_turned_away_has_all(tmp_path):
    still, turned = np.eye(4)[[0, 0, 1, 2]], np.eye(4)[[1, 1, 2, 3]]
    record = written(
        tmp_path, [row(0, np.stack([still, still])), row(9, np.stack([still, turned]))]
    )
    (found,) = compute_drifts(record, "a").values()
    assert found.steps == [0, 9]
    assert found.values.tolist() == [[0, 1]]
    assert found.values.dtype == torch.float32


def test_each_interval_is_the_mean_distance_of_rows_within_the_records_rounding(tmp_path):
    draw, steps = np.random.default_rng(0), (0, 1, 5, 20)
    weights = {(s, at): draw.dirichlet(np.ones(4), (2, 4)) for s in steps for at in (0, 1)}
    rows = [
        row(step, weights[step, at], probe=probe, layer=layer)
        for step in steps
        for probe in ("a", "b")
        for at, layer in enumerate(LAYERS)
    ]
    rows += [row(step, np.full((1, 1, 4), 0.25), layer=None, query_at=[3]) for step in steps]
    found = compute_drifts(written(tmp_path, rows), "a")
    assert list(found) == LAYERS
    for at, layer in enumerate(LAYERS):
        assert found[layer].steps == list(steps)
        expected = [
            [np.mean([*map(distance, one[head], other[head])]) for head in (0, 1)]
            for one, other in pairwise(weights[step, at] for step in steps)
        ]
        np.testing.assert_allclose(found[layer].values, expected, atol=0.01)


def test_the_records_rounding_makes_no_row_more_or_less_than_whole(tmp_path):
    # Of 3 equal weights, each is kept as a little less than a third.
    tokens, queries = list("abcd"), [0, 1]
    before, after = np.zeros((2, 1, 2, 4))
    before[:, 0, :3], after[:, 0, 3] = 1 / 3, 1
    # The second query is padding, which looks nowhere and stands still.
    rows = [row(s, w, tokens=tokens, query_at=queries) for s, w in ((0, before), (1, after))]
    assert abs(Pattern.from_row(rows[0], Layers(LAYERS)).weights[0, 0].sum() - 1) > 1e-3
    (found,) = compute_drifts(written(tmp_path, rows), "a").values()
    assert found.values.tolist() == [[pytest.approx(0.5, abs=1e-6)]]


def test_a_run_that_recorded_once_has_no_interval(tmp_path):
    (found,) = compute_drifts(written(tmp_path, [row(3, np.full((2, 4, 4), 0.25))]), "a").values()
    assert (found.steps, tuple(found.values.shape)) == ([3], (0, 2))


def test_what_cannot_be_compared_is_refused(tmp_path):
    even = np.full((2, 4, 4), 0.25)
    with refuses(LookupError, "evidence.drifts.probe"):
        compute_drifts(written(tmp_path, [row(0, even)]), "b")
    for name, weights, fields in (
        ("heads", even[:1], {}),
        ("tokens", even, {"tokens": ["a", "cat", "sat", "."]}),
        ("queries", even[:, :3], {"query_at": [0, 1, 2]}),
    ):
        path = tmp_path / name
        record = written(path, [row(0, even), row(4, weights, **fields)])
        with refuses(ValueError, f"evidence.drifts.{name}", path):
            compute_drifts(record, "a")
