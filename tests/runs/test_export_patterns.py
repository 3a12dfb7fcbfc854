"""Patterns leave in the forms of other programs with every weight and token in its place."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import attnlab
from attnlab.errors import RequestError
from attnlab.runs.attempt import Attempt
from attnlab.runs.export_patterns import (
    left_out_of_bertviz,
    left_out_of_circuitsvis,
    plain,
    to_bertviz,
    to_circuitsvis,
    to_npz,
)
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


# Of the decoder another layer, and of what stands between other heads, than of the encoder.
LATER = drawn("decoder.1.mixer.attend.pattern", SAID)
MANY = [drawn(f"decoder.{layer}.cross.attend.pattern", TEXT, SAID, heads=3) for layer in range(2)]
LATENTS = [f"[LATENT {number}]" for number in range(3)]
MIXED = drawn("blocks.9.mixer.mixing", TEXT)
SETS = {
    "own": [*OWN, INFLUENCED],
    "kept": [one.of([1]) for one in OWN],
    "mixed": [*OWN, MIXED, INFLUENCED],
    "both": [*BOTH, INFLUENCED],
    "across": [BOTH[1]],
    "deeper decoder": [*BOTH, LATER],
    "deeper encoder": [BOTH[0], BOTH[2], drawn("encoder.1.mixer.attend.pattern", TEXT)],
    "more heads": [BOTH[0], BOTH[2], *MANY],
    "latents": [BOTH[2], drawn("bottleneck.attend.pattern", TEXT, LATENTS)],
}
WITHIN = [name for name in SETS if name != "across"]


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
    narrow = [
        drawn("bottleneck.attend.pattern", TEXT, LATENTS),
        drawn("decoder.0.cross.attend.pattern", LATENTS, SAID),
    ]
    assert set(to_bertviz([*narrow, BOTH[0], BOTH[2]])) == {
        *("encoder_attention", "encoder_tokens", "decoder_attention", "decoder_tokens"),
    }
    with pytest.raises(ValueError, match="no attention between tokens"):
        to_bertviz(narrow)


def test_circuitsvis_gets_each_layer_within_one_sequence():
    for given, patterns in ((to_circuitsvis(OWN), OWN), (to_circuitsvis(BOTH), BOTH[::2])):
        for layer, pattern in zip(given, patterns, strict=True):
            assert set(layer) == {"tokens", "attention", "attention_head_names", "mask_upper_tri"}
            assert layer["tokens"] == pattern.tokens
            assert np.array_equal(layer["attention"], pattern.weights)
            # Unless told not to, CircuitsVis hides what a model that sees both ways looks at.
            assert layer["mask_upper_tri"] is False
    assert json.loads(json.dumps(plain(to_circuitsvis(OWN))))[0]["tokens"] == TEXT


def test_circuitsvis_gets_the_numbers_that_heads_have_in_their_layer():
    (given,) = to_circuitsvis([OWN[1].of([1])])
    assert given["attention_head_names"] == ["blocks.1.mixer.attend, head 1"]


@pytest.mark.parametrize(
    ("name", "kinds", "why"),
    [
        ("deeper decoder", {"encoder", "cross"}, "2 layers x 2 heads, where BertViz shows 1 layer"),
        ("deeper encoder", {"encoder"}, "1 layer x 2 heads, where BertViz shows 2 layers x 2"),
        ("more heads", {"encoder", "decoder"}, "2 layers x 3 heads, where BertViz shows 1 layer x"),
    ],
)
def test_of_kinds_of_unequal_size_bertviz_gets_those_with_the_most_maps(name, kinds, why):
    given = to_bertviz(SETS[name])
    assert {kind for kind in given if "attention" in kind} == {f"{of}_attention" for of in kinds}
    assert all(why in reason for reason in left_out_of_bertviz(SETS[name]).values())


@pytest.mark.parametrize(
    ("export", "left_out"),
    [(to_bertviz, left_out_of_bertviz), (to_circuitsvis, left_out_of_circuitsvis)],
)
@pytest.mark.parametrize("name", WITHIN)
def test_what_is_not_given_is_named_as_left_out(export, left_out, name):
    given, left = export(SETS[name]), left_out(SETS[name])
    layers = [one["attention"] for one in given] if isinstance(given, list) else []
    if isinstance(given, dict):
        layers = [one for kind, of in given.items() if "attention" in kind for one in of]
    there = {one.source for one in SETS[name]}
    assert len(layers) == len(there - left.keys())
    assert left.keys() <= there


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


def drawn_from(page: str, before: str) -> dict[str, Any]:
    """Read the first object that stands in a page behind this."""
    found = re.search(before, page)
    assert found is not None
    return json.JSONDecoder().raw_decode(page, found.end())[0]


# BertViz leaves its scripts open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", SETS)
def test_bertviz_shows_every_map_that_it_is_given(name):
    bertviz = pytest.importorskip("bertviz")
    kept = [one for one in SETS[name] if one.source not in left_out_of_bertviz(SETS[name])]
    # BertViz has the encoder first, and what stands between last.
    kept.sort(key=lambda one: (not one.source.startswith("encoder."), one.reading is not None))
    arrays = to_bertviz(SETS[name])
    for given in (arrays, json.loads(json.dumps(plain(arrays)))):
        tensors = {
            kind: part if "tokens" in kind else [torch.tensor(layer) for layer in part]
            for kind, part in given.items()
        }
        for view in (bertviz.head_view, bertviz.model_view):
            page = view(**tensors, html_action="return").data
            kinds = drawn_from(page, "const params = ")["attention"]
            shown = [(kind, weights) for kind in kinds for weights in kind["attn"]]
            for (kind, weights), one in zip(shown, kept, strict=True):
                assert np.array_equal(np.float32(weights), one.weights)
                assert kind["left_text"] == list(one.queries)
                assert kind["right_text"] == list(one.tokens)


@pytest.mark.parametrize("name", WITHIN)
def test_circuitsvis_shows_every_map_that_it_is_given(name):
    views = pytest.importorskip("circuitsvis.attention")
    kept = [one for one in SETS[name] if one.source not in left_out_of_circuitsvis(SETS[name])]
    arrays = to_circuitsvis(SETS[name])
    for given in (arrays, json.loads(json.dumps(plain(arrays)))):
        for layer, one in zip(given, kept, strict=True):
            older = views.attention_patterns(layer["tokens"], layer["attention"])
            for view in (views.attention_heads(**layer), older):
                shown = drawn_from(str(view), r'"circuits-vis-[^"]*",\s*\w+,\s*')
                assert np.array_equal(np.float32(shown["attention"]), one.weights)
                assert shown["tokens"] == list(one.tokens)
                if view is not older:
                    assert shown["maskUpperTri"] is False
                    assert len(shown["attentionHeadNames"]) == len(one.weights)


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
