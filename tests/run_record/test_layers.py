"""The layers of a run are those of its model, stated by a record or inferred from one of 0.1."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import attnlab
from attnlab.errors import RecordError
from attnlab.layers import AttentionLayer, Axes, ExpertLayer, LSTMLayer, MixingLayer
from attnlab.run_record import head_scores
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.forms import seal
from attnlab.run_record.layers import FILE, Layers, infer_layers, read_layers
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from attnlab.run_record.record import Record, find_runs
from tests import child
from tests.fabricated import state_layers
from tests.prose import refuses

FIRST_RECORDS = Path(__file__).parents[1] / "records/runs"
FINISHED = [record.name for record in find_runs(FIRST_RECORDS) if record.state == "finished"]


@pytest.mark.filterwarnings("ignore::attnlab.errors.RecordWarning")
@pytest.mark.parametrize("name", FINISHED)
def test_the_layers_inferred_of_a_record_of_0_1_are_those_that_its_model_states(name):
    record = Record(FIRST_RECORDS / name)
    assert not list(record.path.glob(f"attempts/*/{FILE}"))
    model = attnlab.load(record.path).model
    assert list(record.layers.attention) == model.attention_layers()
    linear = [layer for layer in model.mixing_layers() if layer.is_linear]
    assert list(record.layers.mixing) == linear


def test_records_of_0_1_of_one_stack_and_of_two_have_attention():
    attention = [layer for n in FINISHED for layer in Record(FIRST_RECORDS / n).layers.attention]
    assert {layer.axes for layer in attention} == {
        *(Axes(), Axes("prefix", "prefix"), Axes("prefix", "inputs")),
    }


def test_a_run_states_the_layers_of_its_model(tmp_path):
    assert (
        child.train(tmp_path, "dataset=reversal", "model/mixer=gated_delta", "model/ffn=moe") == 0
    )
    record = child.only_record(tmp_path)
    model = attnlab.load(record.path).model
    assert list(record.layers.attention) == model.attention_layers()
    assert list(record.layers.mixing) == model.mixing_layers()
    assert len(record.layers.attention) == 1
    assert len(record.layers.mixing) == 3
    assert list(record.layers.experts) == model.expert_layers()
    assert [layer.path for layer in model.expert_layers()] == [
        *("blocks.0.ffn", "encoder.blocks.0.ffn"),
    ]
    for layer in (*record.layers.attention, *record.layers.mixing):
        assert record.layers.by_source[layer.source] == layer
    assert list(record.layers.by_path) == [layer.path for layer in model.attention_layers()]


LAYERS = Layers(
    [AttentionLayer(0, "blocks.0.inner", 3, Axes("prefix", "latents"))],
    [MixingLayer(0, "blocks.1.mixer", "blocks.1.mixer.influence", 1, Axes(), is_linear=False)],
    [ExpertLayer(0, "blocks.1.ffn", 4)],
    [LSTMLayer(0, "blocks.1.mixer.cells", is_reversed=False)],
)


def test_what_is_stated_is_read_back(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    assert read_layers(attempt.path) is None
    state_layers(attempt.path, LAYERS)
    attempt.close()
    assert read_layers(attempt.path) == LAYERS
    assert Record(tmp_path / "run").layers == LAYERS


def test_a_record_from_before_experts_were_stated_has_none(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    state_layers(attempt.path, LAYERS)
    attempt.close()
    content = json.loads((attempt.path / FILE).read_text())
    older = {key: content[key] for key in ("schema", "attention", "mixing")}
    (attempt.path / FILE).write_text(json.dumps(seal(older)))
    assert read_layers(attempt.path) == replace(LAYERS, experts=[], lstm=[])


def test_the_newest_attempt_that_states_them_counts(tmp_path):
    first = Attempt.claim(tmp_path / "run", {"seed": 0})
    state_layers(first.path, LAYERS)
    first.close()
    origin = {"attempt": 1, "step": 1, "sha256": ""}
    second = Attempt.claim(tmp_path / "run", {"seed": 0}, origin)
    assert Record(tmp_path / "run").layers == LAYERS
    others = replace(LAYERS, mixing=[])
    state_layers(second.path, others)
    second.close()
    assert Record(tmp_path / "run").layers == others


def test_damage_is_told(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    state_layers(attempt.path, LAYERS)
    attempt.close()
    file = attempt.path / FILE
    whole = file.read_text()
    content = json.loads(whole)
    content["attention"][0]["num_heads"] = 4
    wrong = {
        "torn": whole[: len(whole) // 2],
        "changed": json.dumps(content),
        "form": json.dumps({"schema": 2, "attention": [{"index": 0}], "mixing": []}),
    }
    for name, text in wrong.items():
        file.write_text(text)
        with refuses(RecordError, f"runs.layers.{name}", tmp_path):
            _ = Record(tmp_path / "run").layers


def test_where_a_record_of_0_1_kept_some_layers_alone_nobody_knows_their_numbers(tmp_path):
    recorded = {"blocks.1.mixer.attend.pattern": 2, "influence": 1}
    (layer,) = infer_layers({}, recorded, 2).attention
    assert (layer.index, layer.path, layer.num_heads) == (-1, "blocks.1.mixer.attend", 2)
    assert layer.name == "blocks.1.mixer.attend"
    # Where as many were kept as there are, or heads were measured, they are known.
    (layer,) = infer_layers({}, recorded, 1).attention
    assert (layer.index, layer.name) == (0, "layer 0")
    measured = {"blocks.0.mixer.attend": 4, "blocks.1.mixer.attend": 4}
    assert [
        (layer.index, layer.num_heads) for layer in infer_layers(measured, recorded, 2).attention
    ] == [(0, 4), (1, 4)]


def test_a_count_alone_tells_nothing_of_a_record_of_0_1_with_an_encoder():
    """Two layers of six were recorded, and `num_layers` is 2 as well."""
    recorded = {"blocks.1.mixer.attend.pattern": 4, "encoder.blocks.0.mixer.attend.pattern": 4}
    assert [layer.index for layer in infer_layers({}, recorded, 2).attention] == [-1, -1]


def test_the_axes_of_a_record_of_0_1_are_those_of_the_families_parts():
    def axes(*paths: str, crossing: Sequence[str] = ()) -> list[Axes]:
        layers = infer_layers(dict.fromkeys(paths, 4), {}, len(paths), crossing)
        return [layer.axes for layer in layers.attention]

    own, reads, inputs = Axes("prefix", "prefix"), Axes("prefix"), Axes()
    block = ["blocks.0.mixer.attend", "blocks.0.cross.attend"]
    assert axes(*block, "encoder.blocks.0.mixer.attend") == [own, reads, inputs]
    # An encoder that attends nowhere is there all the same.
    assert axes(*block) == [own, reads]
    assert axes(block[0]) == [inputs]
    narrow = axes(*block, "encoder.blocks.0.mixer.attend", "bottleneck.cross.attend")
    assert narrow == [own, Axes("prefix", "latents"), inputs, Axes("latents", "inputs")]
    assert axes("attention.attend") == [inputs]
    assert axes("attention.attend", crossing=["attention.attend"]) == [reads]


def test_a_matrix_of_a_record_of_0_1_is_of_a_layer_that_mixes(tmp_path):
    layers = infer_layers({}, {"blocks.0.mixer.forwards.mixing": 4}, 1)
    path = "blocks.0.mixer.forwards"
    assert layers.attention == []
    assert list(layers.mixing) == [
        MixingLayer(0, path, f"{path}.mixing", 4, Axes(), is_linear=True)
    ]


def test_a_layer_of_0_1_crosses_where_its_patterns_or_its_measures_show_it(tmp_path):
    layer = AttentionLayer(0, "attention.attend", 1, Axes("prefix"))
    even = PatternWeights(np.full((1, 2, 3), 1 / 3, np.float32))
    about = Pattern(0, "a", layer, list("abc"), [0, 1], 1, even, query_tokens=list("xy")).to_row()
    scores = [head_scores.measure_row(0, layer, name, [0.5]) for name in ("entropy", "distance")]
    for name, patterns, measures, crosses in (
        ("patterns", [about], [], True),
        ("patterns of one", [{**about, "reading": []}], scores, False),
        ("measures", [], scores[:1], True),
        ("measures of one", [], scores, False),
    ):
        attempt = Attempt.claim(tmp_path / name, {"seed": 0, "model": {"num_layers": 1}})
        attempt.append("patterns", patterns)
        attempt.append("heads", measures)
        attempt.close()
        expected = replace(layer, axes=Axes("prefix") if crosses else Axes())
        assert list(Record(tmp_path / name).layers.attention) == [expected], name


def test_a_record_without_rows_or_a_model_has_no_layers(tmp_path):
    Attempt.claim(tmp_path / "run", {"seed": 0}).close()
    assert Record(tmp_path / "run").layers == Layers([], [])
