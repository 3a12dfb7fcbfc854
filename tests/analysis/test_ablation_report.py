"""What an ablation reports is what the intervention does, and what the command prints."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from attnlab.analysis import ablations
from attnlab.analysis.ablations.edge_cut import parse_edge
from attnlab.analysis.report import SCHEMA
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.interventions import knock_out_edge, prune
from attnlab.interp.patching import patch
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun
from tests.prose import refuses

TEXT = "The animal didn't cross the street because it was too tired."
SMALL = [f"dataset.num_{split}=24" for split in ("train", "validation", "test")]
CHOSEN = [HeadRef(0, 1), HeadRef(1, 2)]
"""No product of layers and heads."""


@pytest.fixture
def run(offer) -> Iterator[LoadedRun]:
    """A run of `pronoun`, which no question changes."""
    built = offer("dataset=pronoun", *SMALL)
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    yield built
    assert all(torch.equal(v, before[name]) for name, v in built.model.state_dict().items())
    assert not any(module._forward_hooks for module in built.model.modules())


def printed(capsys, *words: str) -> Any:
    assert main(["ablate", "untrained", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def loss_without(run: LoadedRun, heads: list[HeadRef], split: str = "validation") -> float:
    with prune(run.model, heads):
        return run.evaluate(split)["loss"]


def test_the_command_prints_the_reports(run, capsys):
    column = [HeadRef(layer, 1) for layer in (0, 1)]
    asked = {
        (): ablations.heads_without_report(run),
        ("--heads", "1", "--method", "mean", "--split", "test"): ablations.heads_without_report(
            run, heads=column, method="mean", split="test"
        ),
        ("--importance",): ablations.importance_report(run),
        ("--prune", "--heads", "1", "--metric", "loss"): ablations.pruning_report(
            run, heads=column, metric="loss"
        ),
        ("--prune", "--heads", "1", "--random", "2"): ablations.pruning_report(
            run, heads=column, num_random=2
        ),
        ("--edge", "it:1", "--text", TEXT): ablations.edge_cut_report(run, TEXT, ("it", 1)),
        ("--twins", "--query", "it"): ablations.patching_report(run, query="it"),
    }
    for words, report in asked.items():
        assert printed(capsys, *words) == report.to_json()
        assert report.to_json()["schema"] == SCHEMA
        assert (report.run, report.step) == ("untrained", 7)


def test_heads_are_told_by_the_numbers_and_paths_of_the_models_layers(run):
    layers = run.model.attention_layers()
    rows = [
        *ablations.heads_without_report(run).ablated,
        *ablations.importance_report(run).heads,
        *ablations.patching_report(run, heads=CHOSEN).heads,
        *ablations.pruning_report(run, heads=CHOSEN).curve[1:],
    ]
    assert all(row.name == layers[row.layer].path for row in rows)
    assert {row.layer for row in rows} == {layer.index for layer in layers}


def test_a_layer_is_measured_as_a_whole_where_all_of_its_heads_are_chosen(run):
    layer = run.model.attention_layers()[1]
    report = ablations.heads_without_report(run, metric="loss", heads=[HeadRef(0, 0), *layer.heads])
    assert [(row.layer, row.head) for row in report.ablated] == [
        *((0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (1, None)),
    ]
    assert report.ablated[-1].value == loss_without(run, layer.heads)
    assert report.all_ablated == loss_without(run, [HeadRef(0, 0), *layer.heads])
    assert ablations.heads_without_report(run, metric="loss").all_ablated is None


def test_any_heads_can_be_chosen(run):
    losses = [loss_without(run, [head]) for head in CHOSEN]
    without = ablations.heads_without_report(run, metric="loss", heads=CHOSEN)
    assert [row.value for row in without.ablated] == losses
    assert without.all_ablated == loss_without(run, CHOSEN)
    importance = ablations.importance_report(run, heads=CHOSEN)
    assert [row.value for row in importance.heads] == losses
    assert all(row.change == row.value - importance.loss for row in importance.heads)
    pruned = ablations.pruning_report(run, metric="loss", heads=CHOSEN, order="greedy")
    removed = [
        HeadRef(row.layer, row.head)
        for row in pruned.curve
        if row.layer is not None and row.head is not None
    ]
    assert sorted(removed) == CHOSEN
    assert [row.value for row in pruned.curve] == [
        loss_without(run, removed[:count]) for count in range(3)
    ]
    twins = ablations.patching_report(run, heads=CHOSEN)
    together = patch(run.subject, run.dataset.contrast_pairs(), CHOSEN)
    assert twins.all_heads.effect == together.normalised_effect
    assert [row.effect for row in twins.heads] == [
        patch(run.subject, run.dataset.contrast_pairs(), [head]).normalised_effect
        for head in CHOSEN
    ]


def test_the_answer_without_an_edge_is_that_of_the_model_whose_edge_is_cut(run):
    query, key = torch.tensor([8]), torch.tensor([9])
    report = ablations.edge_cut_report(run, TEXT, "it:was", heads=CHOSEN)
    with (
        knock_out_edge(run.model, query, key, [0], [1]),
        knock_out_edge(run.model, query, key, [1], [2]),
    ):
        after = run(TEXT).softmax(dim=0)
    assert (report.query, report.key, report.layers) == (8, 9, [0, 1])
    outputs, before = list(run.objective.outputs), run(TEXT).softmax(dim=0)
    for row in report.answers:
        at = outputs.index(row.output)
        assert row.before == pytest.approx(float(before[at]), abs=1e-5)
        assert row.after == pytest.approx(float(after[at]), abs=1e-6)
    patterns = {layer.index: p for layer, p in run.capture(TEXT)[0].patterns.items()}
    assert [row.weight for row in report.heads] == [
        float(patterns[head.layer][head.head, 8, 9]) for head in CHOSEN
    ]
    everywhere = ablations.edge_cut_report(run, TEXT, (8, 9))
    assert [HeadRef(r.layer, r.head) for r in everywhere.heads] == all_heads(run.model)
    assert everywhere.answers != report.answers


def test_a_token_of_an_edge_may_have_a_colon():
    assert parse_edge("a:b:c", ["c", "a:b"]) == (1, 0)
    assert parse_edge("c:a:b", ["c", "a:b"]) == (0, 1)
    assert parse_edge(("a:b", 0), ["c", "a:b"]) == (1, 0)


def test_without_layers_heads_of_an_edge_are_those_that_read_the_text(offer, capsys):
    run = offer("dataset=reversal", *SMALL)
    found = printed(capsys, "--edge", "1:0", "--text", "d a c", "--heads", "2")
    assert [(row["layer"], row["head"]) for row in found["heads"]] == [
        (layer, 2) for layer in ablations.edge_cut_report(run, "d a c", "1:0").layers
    ]


def test_what_is_not_there_is_refused(run, offer):
    def refused(key: str, ask: Any, *about: Any, **how: Any) -> None:
        with refuses(RequestError, f"analysis.ablations.{key}"):
            ask(*about, **how)

    refused("heads", ablations.importance_report, run, heads=[HeadRef(0, 4), HeadRef(2, 0)])
    refused("method", ablations.heads_without_report, run, method="median")
    refused("order", ablations.pruning_report, run, order="random")
    refused("metric", ablations.pruning_report, run, metric="acuracy")
    refused("edge", ablations.edge_cut_report, run, TEXT, ("it", 13))
    refused("num_random", ablations.pruning_report, run, num_random=0)
    lstm = offer("dataset=pronoun", "variant=lstm", *SMALL)
    for ask in (ablations.heads_without_report, ablations.patching_report):
        refused("no_heads", ask, lstm)
