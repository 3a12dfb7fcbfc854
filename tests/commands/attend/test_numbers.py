"""What `attnlab attend` prints and draws are the numbers that the model gives."""

import json
import re

import numpy as np
import pytest
import torch

from attnlab.commands.render.attention import positions_of_most_weight
from attnlab.figures import heatmap
from attnlab.interp.interventions import knock_out_edge
from attnlab.loaded_run import LoadedRun
from tests.commands.attend.conftest import shown
from tests.commands.attend.test_command import READS


def answer_of(run: LoadedRun, logits) -> list[dict]:
    return [{"output": name, "probability": p} for name, p in run.answers(logits)]


@pytest.mark.parametrize(("name", "query"), [("multihead", 8), ("multihead", 3), ("seq2seq", 1)])
def test_json_has_the_rows_of_the_query_and_the_answer_without_its_largest_edges(
    offer, capsys, name, query
):
    run, text = offer(name)
    captured, _ = run.capture(text)
    found = json.loads(shown(capsys, text, "--query", str(query), "--format", "json"))
    layers = [layer.index for layer in captured.patterns]
    assert found["heads"] == [
        {"layer": layer, "head": head, "weights": rows[query].tolist()}
        for layer, pattern in zip(layers, captured.patterns.values(), strict=True)
        for head, rows in enumerate(pattern)
    ]
    assert (found["query"], found["influence"]) == (query, captured.influence.tolist())
    assert found["answer"] == answer_of(run, captured.answer)
    head = (found["shown"]["layer"], found["shown"]["head"])
    (weight,) = (
        np.array(one["weights"]) for one in found["heads"] if (one["layer"], one["head"]) == head
    )
    assert [one["key"] for one in found["cuts"]] == np.argsort(-weight)[:3].tolist()
    for one in found["cuts"]:
        with knock_out_edge(run.model, torch.tensor([query]), torch.tensor([one["key"]]), layers):
            assert one["answer"] == answer_of(run, run(text))
    assert any(one["answer"] != found["answer"] for one in found["cuts"])
    sources = [one["source"] for one in found["maps"]]
    assert len(set(sources)) == len(sources)


def test_no_edge_is_cut_that_is_not_there(offer, capsys):
    _, text = offer("multihead", "objective.causal=true")
    for query, keys in (0, []), (1, [0, 1]):
        found = json.loads(shown(capsys, text, "--query", str(query), "--format", "json"))
        assert sorted(one["key"] for one in found["cuts"]) == keys


def test_of_many_tokens_the_query_and_those_with_the_largest_weights_are_shown():
    weights = np.random.default_rng(0).permutation(60) / 60
    columns = [("L0H0", weights.tolist()), ("answer", weights[::-1].tolist())]
    largest = np.argsort(-np.maximum(weights, weights[::-1]), kind="stable")
    query = int(largest[-1])
    assert positions_of_most_weight(columns, query) == sorted([query, *largest[:19].tolist()])


def test_the_row_of_the_query_is_marked(offer, capsys):
    _, text = offer("multihead")
    marked = [s for s in shown(capsys, text, "--query", "9").splitlines() if s.startswith(">")]
    assert len(marked) == 2
    assert all("was" in line for line in marked)


def test_a_picture_of_all_heads_has_each_under_its_name_with_its_row_marked(
    offer, capsys, tmp_path, monkeypatch
):
    run, text = offer("seq2seq")
    captured, _ = run.capture(text)
    drawn, multiples = [], heatmap.draw_small_multiples

    def spy(rows, *about):
        drawn[:] = rows
        return multiples([rows[0][:1]], *about)

    monkeypatch.setattr(heatmap, "draw_small_multiples", spy)
    shown(capsys, text, "--query", "1", "-o", str(tmp_path / "map.svg"))
    for layer, of_layer in zip(run.model.attention_layers(), drawn, strict=True):
        weights = captured.weights[layer]
        at = 1 if layer.axes.queries == "inputs" else weights.shape[1] - 1
        for head, one in enumerate(of_layer):
            assert (one.title, one.at) == (f"layer {layer.index}, head {head}", at)
            assert np.allclose(one.weights, weights[head])


def test_the_influence_on_the_answers_says_what_reads_what(offer, capsys):
    for name, reads in (("seq2seq", "the answer so far"), ("multihead", "the text")):
        _, text = offer(name)
        out = shown(capsys, text, "--layer", "answer")
        assert re.findall(READS, out) == [(reads, "the text")]
