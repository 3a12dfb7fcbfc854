"""Patterns leave in the forms of other programs with every weight and token in its place."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import attnlab
from attnlab.analysis.export_patterns import (
    arrays_as_lists,
    left_out_of_bertviz,
    left_out_of_circuitsvis,
    to_bertviz,
    to_circuitsvis,
    to_npz,
)
from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer, Axes, Layer, MixingLayer, SequenceName
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import ERROR, TABLE, Pattern, PatternWeights
from tests.fabricated import state_layers
from tests.prose import refuses, says

TEXT, SAID = ["a", "b", "c", "é"], ["[BEGIN]", "x"]


def attends(
    index: int,
    path: str,
    queries: SequenceName = "inputs",
    keys: SequenceName = "inputs",
    num_heads: int = 2,
) -> AttentionLayer:
    return AttentionLayer(index, path, num_heads, Axes(queries, keys))


def drawn(layer: Layer, keys: list[str], reading: list[str] | None = None, **fields) -> Pattern:
    queries, heads = keys if reading is None else reading, layer.num_heads
    random = np.random.default_rng([len(layer.source), heads])
    weights = random.dirichlet(np.ones(len(keys)), (heads, len(queries))).astype(np.float32)
    query_places = list(range(len(queries)))
    return Pattern(
        **{"step": 3, "probe": "p", **fields},
        layer=layer,
        tokens=keys,
        query_at=query_places,
        answer_position=0,
        data=PatternWeights(weights),
        query_tokens=reading,
    )


OWN = [drawn(attends(at, f"blocks.{at}.mixer.attend"), TEXT) for at in range(3)]
INFLUENCED = Pattern(
    3, "p", None, TEXT, [3], 3, PatternWeights(np.full((1, 1, 4), 0.25, np.float32))
)
BOTH = [
    drawn(attends(0, "decoder.0.mixer.attend", "prefix", "prefix"), SAID),
    drawn(attends(1, "decoder.0.cross.attend", "prefix"), TEXT, SAID),
    drawn(attends(4, "encoder.0.mixer.attend"), TEXT),
]


# Of the decoder another layer, and of what stands between other heads, than of the encoder.
LATER = drawn(attends(2, "decoder.1.mixer.attend", "prefix", "prefix"), SAID)
MANY = [
    drawn(attends(2 * at + 1, f"decoder.{at}.cross.attend", "prefix", num_heads=3), TEXT, SAID)
    for at in range(2)
]
LATENTS = [f"[LATENT {number}]" for number in range(3)]
NARROW = [
    drawn(attends(5, "bottleneck.attend", "latents"), TEXT, LATENTS),
    drawn(attends(1, "decoder.0.cross.attend", "prefix", "latents"), LATENTS, SAID),
]
MIXING = MixingLayer(0, "blocks.9.mixer", "blocks.9.mixer.mixing", 2, Axes(), is_linear=True)
MIXED = drawn(MIXING, TEXT)
SETS = {
    "own": [*OWN, INFLUENCED],
    "kept": [one.select_heads([1]) for one in OWN],
    "mixed": [*OWN, MIXED, INFLUENCED],
    "both": [*BOTH, INFLUENCED],
    "across": [BOTH[1]],
    "deeper decoder": [*BOTH, LATER],
    "deeper encoder": [BOTH[0], BOTH[2], drawn(attends(5, "encoder.1.mixer.attend"), TEXT)],
    "more heads": [BOTH[0], BOTH[2], *MANY],
    "latents": [BOTH[2], NARROW[0]],
}
WITHIN = [name for name in SETS if name != "across"]


def test_bertviz_gets_a_list_of_layers_each_a_batch_of_one():
    arguments = to_bertviz([*OWN, INFLUENCED])
    assert set(arguments) == {"attention", "tokens"}
    assert arguments["tokens"] == TEXT
    assert [layer.shape for layer in arguments["attention"]] == [(1, 2, 4, 4)] * 3
    for layer, pattern in zip(arguments["attention"], OWN, strict=True):
        assert np.array_equal(layer[0], pattern.weights)


def test_bertviz_gets_encoder_decoder_and_what_stands_between_by_name():
    arguments = to_bertviz([*BOTH, INFLUENCED])
    assert (arguments["encoder_tokens"], arguments["decoder_tokens"]) == (TEXT, SAID)
    shapes = {
        name: layers[0].shape[2:] for name, layers in arguments.items() if "tokens" not in name
    }
    assert shapes == {
        "decoder_attention": (2, 2),
        "cross_attention": (2, 4),
        "encoder_attention": (4, 4),
    }
    assert np.array_equal(arguments["cross_attention"][0][0], BOTH[1].weights)
    assert set(to_bertviz(BOTH[:1])) == {"attention", "tokens"}
    across = to_bertviz([BOTH[1]])
    assert set(across) == {"cross_attention", "encoder_tokens", "decoder_tokens"}


def test_bertviz_is_not_given_latents_as_tokens():
    assert set(to_bertviz([*NARROW, BOTH[0], BOTH[2]])) == {
        *("encoder_attention", "encoder_tokens", "decoder_attention", "decoder_tokens"),
    }
    with refuses(ValueError, "runs.export.latents_alone"):
        to_bertviz(NARROW)


def test_circuitsvis_gets_each_layer_within_one_sequence():
    for given, patterns in ((to_circuitsvis(OWN), OWN), (to_circuitsvis(BOTH), BOTH[::2])):
        for layer, pattern in zip(given, patterns, strict=True):
            assert set(layer) == {"tokens", "attention", "attention_head_names", "mask_upper_tri"}
            assert layer["tokens"] == pattern.tokens
            assert np.array_equal(layer["attention"], pattern.weights)
            # Unless told not to, CircuitsVis hides what a model that sees both ways looks at.
            assert layer["mask_upper_tri"] is False
    assert json.loads(json.dumps(arrays_as_lists(to_circuitsvis(OWN))))[0]["tokens"] == TEXT


def test_circuitsvis_gets_the_numbers_that_heads_have_in_their_layer():
    (given,) = to_circuitsvis([OWN[1].select_heads([1])])
    assert given["attention_head_names"] == ["blocks.1.mixer.attend, head 1"]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("deeper decoder", {"encoder", "cross"}),
        ("deeper encoder", {"encoder"}),
        ("more heads", {"encoder", "decoder"}),
    ],
)
def test_of_kinds_of_unequal_size_bertviz_gets_those_with_the_most_maps(name, kinds):
    arguments = to_bertviz(SETS[name])
    assert {kind for kind in arguments if "attention" in kind} == {
        f"{of}_attention" for of in kinds
    }
    reasons = [f"{source}: {why}" for source, why in left_out_of_bertviz(SETS[name]).items()]
    says(f"runs.export.{name.replace(' ', '_')}", "\n".join(reasons))


@pytest.mark.parametrize(
    ("export", "left_out"),
    [(to_bertviz, left_out_of_bertviz), (to_circuitsvis, left_out_of_circuitsvis)],
)
def test_what_is_not_given_is_named_as_left_out(export, left_out):
    for name in WITHIN:
        given, left = export(SETS[name]), left_out(SETS[name])
        layers = [layer["attention"] for layer in given] if isinstance(given, list) else []
        if isinstance(given, dict):
            layers = [
                weights for kind, maps in given.items() if "attention" in kind for weights in maps
            ]
        sources = {pattern.source for pattern in SETS[name]}
        assert len(layers) == len(sources - left.keys()), name
        assert left.keys() <= sources, name


@pytest.mark.parametrize("export", [to_bertviz, to_circuitsvis, to_npz])
def test_patterns_of_several_passes_are_refused(export):
    with refuses(ValueError, "runs.export.several_passes"):
        export([OWN[0], replace(OWN[0], step=4)])


@pytest.mark.parametrize("export", [to_bertviz, to_circuitsvis])
def test_what_is_no_attention_is_not_passed_for_it(export):
    for pattern in (INFLUENCED, MIXED):
        with refuses(ValueError, f"runs.export.no_attention.{export.__name__}"):
            export([pattern])


def test_layers_that_cannot_be_stacked_are_refused():
    with refuses(ValueError, "runs.export.uneven_layers"):
        to_bertviz([OWN[0], drawn(attends(1, "blocks.1.mixer.attend", num_heads=3), TEXT)])


def drawn_from(page: str, before: str) -> dict[str, Any]:
    """Read the first object that stands in a page behind this."""
    start = re.search(before, page)
    assert start is not None
    return json.JSONDecoder().raw_decode(page, start.end())[0]


# BertViz leaves its scripts open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", SETS)
def test_bertviz_shows_every_map_that_it_is_given(name):
    bertviz = pytest.importorskip("bertviz")
    kept = [one for one in SETS[name] if one.source not in left_out_of_bertviz(SETS[name])]
    # BertViz has the encoder first, and what stands between last.
    kept.sort(key=lambda one: (not one.source.startswith("encoder."), one.query_tokens is not None))
    arrays = to_bertviz(SETS[name])
    for given in (arrays, json.loads(json.dumps(arrays_as_lists(arrays)))):
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
    for given in (arrays, json.loads(json.dumps(arrays_as_lists(arrays)))):
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
    with np.load(io.BytesIO(to_npz([drawn(attends(0, "attend"), ["a\0", "a"])]))) as archive:
        assert len(set(archive["attend.pattern.tokens"])) == 2


def test_one_line_reads_a_record(tmp_path):
    attempt, layer = Attempt.claim(tmp_path / "run-1", {"seed": 0}), attends(0, "blocks.0")
    state_layers(attempt.path, Layers([layer]))
    written = [drawn(layer, TEXT, step=s, probe=p) for s in (1, 2) for p in "pq"]
    attempt.append(TABLE, [one.to_row() for one in written])
    attempt.close()
    patterns = attnlab.patterns("run", runs_dir=tmp_path)
    assert [(one.step, one.probe) for one in patterns] == [(1, "p"), (1, "q"), (2, "p"), (2, "q")]
    assert np.abs(patterns[0].weights - written[0].weights).max() <= ERROR
    (one,) = attnlab.patterns(tmp_path / "run-1", step=2, probe="q")
    assert (one.step, one.probe, one.tokens) == (2, "q", TEXT)
    with refuses(RequestError, "runs.export.no_step", tmp_path):
        attnlab.patterns("run", step=7, runs_dir=tmp_path)
    with refuses(RequestError, "runs.export.no_probe", tmp_path):
        attnlab.patterns("run", probe="r", runs_dir=tmp_path)


def test_reading_patterns_does_not_wait_for_torch():
    script = "import sys, attnlab; attnlab.patterns; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
