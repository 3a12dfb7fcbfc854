"""The figures of a text's runs show what was measured, arm by arm."""

import numpy as np
import pytest

from attnlab.analysis.compare import compare
from attnlab.figures.base import render_svg
from attnlab.report.evidence_curves import _shares_by_distance, evidence_curves, reach_chart
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from attnlab.run_record.record import Record
from tests.drawn import rows_by_layer
from tests.pictured import attention, pictured

TOKENS = list("to be or not to be, that is")[:16]
METRICS = {
    "context/loss_1": 3.0,
    "context/loss_2": 2.5,
    "context/loss_4": 2.0,
    "context/loss_8": 1.5,
    "context/within_1": 2.9,
    "context/within_2": 2.4,
    "context/within_4": 1.8,
}


def pattern(weights: np.ndarray, layer: int = 0) -> Pattern:
    size, attending = weights.shape[-1], attention(layer, len(weights))
    tokens = TOKENS[:size]
    return Pattern(
        5, "validation-0", attending, tokens, range(size), size - 1, PatternWeights(weights)
    )


def test_heads_that_look_one_way_have_all_their_share_there():
    size = 16
    own, before = np.eye(size), np.eye(size, k=-1)
    first = np.zeros((size, size))
    first[:, 0] = 1
    even = np.tril(np.ones((size, size))) / np.arange(1, size + 1)[:, None]
    shown = _shares_by_distance(
        [pattern(np.stack([own, before])), pattern(np.stack([first, even]), 1)]
    )
    assert shown is not None
    names, distances, shares = shown
    assert names == [f"layer {layer}, head {head}" for layer in (0, 1) for head in (0, 1)]
    assert distances == ["0", "1", "2", "3-4", "5-8", "9-15"]
    assert shares[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert shares[1].tolist() == [0, 1, 0, 0, 0, 0]
    # The queries of the second half, 8 to 15, are so far from the first token.
    assert shares[2] == pytest.approx([0, 0, 0, 0, 1 / 8, 7 / 8])
    alone = sum(1 / (query + 1) for query in range(8, 16)) / 8
    assert shares[3, :4] == pytest.approx([alone, alone, alone, 2 * alone])
    assert shares.sum(axis=1) == pytest.approx(np.ones(4))
    assert _shares_by_distance([]) is None


@pytest.fixture
def shown(tmp_path):
    for seed in range(3):
        shifted = {name: value + seed / 10 for name, value in METRICS.items()}
        within = {k: v for k, v in shifted.items() if "within" not in k}
        loss = {"test/loss": 1.6 + seed / 10}
        probes = {"sentences": {"validation-0": TOKENS}, "dataset": "text"}
        pictured(tmp_path, "multihead", 2, seed, metrics=loss | shifted, **probes)
        pictured(tmp_path, "lstm", 2, seed, metrics=loss | within, **probes)
    records = {path.name: Record(path) for path in tmp_path.iterdir()}
    results = {name: record.result for name, record in records.items()}
    finished = {name: result for name, result in results.items() if result}
    return compare(finished, metric="test/loss")[0], records


def test_the_curves_are_the_means_at_each_length(shown):
    panel, _ = shown
    seen, within = (evidence_curves(panel)[of].to_dict() for of in ("seen", "within"))

    def rows(chart) -> list[dict]:
        return rows_by_layer(chart)[-1]

    def drawn(chart) -> dict:
        return {(p["arm"], p["x"]): p["mean"] for p in rows(chart)}

    lengths = {1: 3.1, 2: 2.6, 4: 2.1, 8: 1.6}
    wanted = {(name, n): loss for name in ("multihead", "lstm") for n, loss in lengths.items()}
    assert drawn(seen) == pytest.approx(wanted)
    # The LSTM has no attention to bound, and a head that sees all is not bounded.
    bounded = {1: 3.0, 2: 2.5, 4: 1.9, 8: 1.6}
    assert drawn(within) == pytest.approx({("multihead", n): x for n, x in bounded.items()})
    assert all(point["n"] == 3 for point in rows(seen))


def test_a_map_of_reach_has_its_losses_beside_it_and_only_arms_with_attention(shown):
    panel, records = shown
    text = render_svg(reach_chart(panel, records))
    assert "multihead (heads of seed 1, the median; n = 3)" in text
    assert "lstm" not in text
    assert "loss where a head sees 8 tokens: 1.6" in text
    assert "layer 1, head 3" in text
    assert "layer 2" not in text


def test_runs_that_did_not_measure_context_have_no_such_figure(tmp_path):
    pictured(tmp_path)
    records = {path.name: Record(path) for path in tmp_path.iterdir()}
    panel = compare({name: r.result for name, r in records.items() if r.result})[0]
    assert evidence_curves(panel) == {}
    assert reach_chart(panel, records) is None
