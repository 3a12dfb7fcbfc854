"""Patterns leave in the forms of other programs with every weight and token in its place."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

import attnlab
from attnlab.errors import RequestError
from attnlab.runs.attempt import Attempt
from attnlab.runs.export_patterns import plain, to_bertviz, to_circuitsvis, to_npz
from attnlab.runs.patterns import ERROR, INFLUENCE, TABLE, Pattern

TEXT, SAID = ["a", "b", "c", "é"], ["[BEGIN]", "x"]


def drawn(
    source: str, keys: list[str], reading: list[str] | None = None, heads: int = 2, **fields
) -> Pattern:
    queries = keys if reading is None else reading
    random = np.random.default_rng([len(source), heads])
    weights = random.dirichlet(np.ones(len(keys)), (heads, len(queries))).astype(np.float32)
    whole = list(range(len(queries)))
    return Pattern(
        **{"step": 3, "probe": "p", **fields},
        source=source,
        tokens=keys,
        query_at=whole,
        asked_at=0,
        weights=weights,
        reading=reading,
    )


OWN = [drawn(f"blocks.{layer}.mixer.attend.pattern", TEXT) for layer in range(3)]
INFLUENCED = Pattern(3, "p", INFLUENCE, TEXT, [3], 3, np.full((1, 1, 4), 0.25, np.float32))
BOTH = [
    drawn("decoder.0.mixer.attend.pattern", SAID),
    drawn("decoder.0.cross.attend.pattern", TEXT, SAID),
    drawn("encoder.0.mixer.attend.pattern", TEXT),
]


def test_bertviz_gets_a_list_of_layers_each_a_batch_of_one():
    given = to_bertviz([*OWN, INFLUENCED])
    assert set(given) == {"attention", "tokens"}
    assert given["tokens"] == TEXT
    assert [layer.shape for layer in given["attention"]] == [(1, 2, 4, 4)] * 3
    for layer, pattern in zip(given["attention"], OWN, strict=True):
        assert np.array_equal(layer[0], pattern.weights)


def test_bertviz_gets_encoder_decoder_and_what_stands_between_by_name():
    given = to_bertviz([*BOTH, INFLUENCED])
    assert (given["encoder_tokens"], given["decoder_tokens"]) == (TEXT, SAID)
    shapes = {name: layers[0].shape[2:] for name, layers in given.items() if "tokens" not in name}
    assert shapes == {
        "decoder_attention": (2, 2),
        "cross_attention": (2, 4),
        "encoder_attention": (4, 4),
    }
    assert np.array_equal(given["cross_attention"][0][0], BOTH[1].weights)
    across = to_bertviz([BOTH[1]])
    assert set(across) == {"cross_attention", "encoder_tokens", "decoder_tokens"}


def test_bertviz_is_not_given_latents_as_tokens():
    latents = [f"[LATENT {number}]" for number in range(3)]
    narrow = [
        drawn("bottleneck.attend.pattern", TEXT, latents),
        drawn("decoder.0.cross.attend.pattern", latents, SAID),
    ]
    assert set(to_bertviz([*narrow, BOTH[0], BOTH[2]])) == {
        *("encoder_attention", "encoder_tokens", "decoder_attention", "decoder_tokens"),
    }
    with pytest.raises(ValueError, match="no attention between tokens"):
        to_bertviz(narrow)


def test_circuitsvis_gets_each_layer_within_one_sequence():
    for given, patterns in ((to_circuitsvis(OWN), OWN), (to_circuitsvis(BOTH), BOTH[::2])):
        for layer, pattern in zip(given, patterns, strict=True):
            assert set(layer) == {"tokens", "attention"}
            assert layer["tokens"] == pattern.tokens
            assert np.array_equal(layer["attention"], pattern.weights)
    assert json.loads(json.dumps(plain(to_circuitsvis(OWN))))[0]["tokens"] == TEXT


@pytest.mark.parametrize("export", [to_bertviz, to_circuitsvis, to_npz])
def test_patterns_of_several_passes_are_refused(export):
    with pytest.raises(ValueError, match="2 steps or probes"):
        export([OWN[0], drawn(OWN[0].source, TEXT, step=4)])


@pytest.mark.parametrize("export", [to_bertviz, to_circuitsvis])
@pytest.mark.parametrize("source", [INFLUENCE, "blocks.0.mixer.mixing"])
def test_what_is_no_attention_is_not_passed_for_it(export, source):
    with pytest.raises(ValueError, match="no attention"):
        export([drawn(source, TEXT)])


def test_layers_that_cannot_be_stacked_are_refused():
    with pytest.raises(ValueError, match="2 heads of 4 x 4, 3 heads of 4 x 4"):
        to_bertviz([OWN[0], drawn("blocks.1.mixer.attend.pattern", TEXT, heads=3)])


def test_an_archive_gives_back_weights_and_both_axes():
    with np.load(io.BytesIO(to_npz([*BOTH, INFLUENCED])), allow_pickle=False) as archive:
        assert len(archive.files) == 3 * 4
        for one in (*BOTH, INFLUENCED):
            assert np.array_equal(archive[one.source], one.weights)
            assert archive[f"{one.source}.tokens"].tolist() == list(one.tokens)
            assert archive[f"{one.source}.queries"].tolist() == list(one.queries)


def test_a_token_that_ends_in_nul_is_still_a_token_in_an_archive():
    with np.load(io.BytesIO(to_npz([drawn("pattern", ["a\0", "a"])]))) as archive:
        assert len(set(archive["pattern.tokens"])) == 2


def test_one_line_reads_a_record(tmp_path):
    attempt = Attempt.claim(tmp_path / "run-1", {"seed": 0})
    written = [drawn("blocks.0.pattern", TEXT, step=s, probe=p) for s in (1, 2) for p in "pq"]
    attempt.append(TABLE, [one.row() for one in written])
    attempt.close()
    found = attnlab.patterns("run", runs_dir=tmp_path)
    assert [(one.step, one.probe) for one in found] == [(1, "p"), (1, "q"), (2, "p"), (2, "q")]
    assert np.abs(found[0].weights - written[0].weights).max() <= ERROR
    (one,) = attnlab.patterns(tmp_path / "run-1", step=2, probe="q")
    assert (one.step, one.probe, one.tokens) == (2, "q", TEXT)
    with pytest.raises(RequestError, match="steps 1, 2"):
        attnlab.patterns("run", step=7, runs_dir=tmp_path)
    with pytest.raises(RequestError, match="probes 'p', 'q'"):
        attnlab.patterns("run", probe="r", runs_dir=tmp_path)


def test_reading_patterns_does_not_wait_for_torch():
    script = "import sys, attnlab; attnlab.patterns; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
