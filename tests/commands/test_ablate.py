"""`attnlab ablate` prints what Python finds in each of its modes, and refuses the rest."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from attnlab.cli import main
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.importance import head_importance, loss_without_each, order_greedily
from attnlab.interp.interventions import MeanPatterns, ablate, knock_out_edge, mean_patterns, prune
from attnlab.layers import Axes, HeadRef
from attnlab.loaded_run import LoadedRun
from tests.printed import without_numbers
from tests.prose import says
from tests.refusals import refusals, refused

TEXT = "The animal didn't cross the street because it was too tired."
IT, WAS = 8, 9
SMALL = [f"dataset.num_{split}=24" for split in ("train", "validation", "test")]


@pytest.fixture
def run(offer) -> Iterator[LoadedRun]:
    """A run of `pronoun`, which no command changes."""
    made = offer("dataset=pronoun", *SMALL)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    state = torch.random.get_rng_state()
    yield made
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[name]) for name, v in made.model.state_dict().items())
    assert not any(module._forward_hooks for module in made.model.modules())
    assert not made.model.training


def as_json(capsys, *words: str) -> dict[str, Any]:
    assert main(["ablate", "untrained", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def as_text(capsys, *words: str) -> str:
    assert main(["ablate", "untrained", *words]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    return text


def means_of(run: LoadedRun, split: str) -> MeanPatterns:
    return mean_patterns(run.subject, run.dataset.splits[split])


def heads_of(rows: Sequence[dict[str, Any]]) -> list[HeadRef]:
    return [HeadRef(row["layer"], row["head"]) for row in rows]


@pytest.mark.parametrize("method", ["zero", "mean"])
def test_heads_are_ablated_by_either_method(run, capsys, method):
    found = as_json(capsys, "--metric", "loss", "--split", "test", "--method", method)
    means = means_of(run, "test") if method == "mean" else None
    about = {"schema": 2, "run": "untrained", "step": 7, "split": "test", "metric": "loss"}
    rows = found.pop("ablated")
    assert found == {**about, "method": method, "intact": run.evaluate("test")["loss"]} | {
        "all_ablated": None
    }
    assert [(r["layer"], r["head"]) for r in rows] == [
        (layer, head) for layer in (0, 1) for head in (0, 1, 2, 3, None)
    ]
    assert {r["name"] for r in rows} == {layer.path for layer in run.model.attention_layers()}
    for row in rows:
        heads = None if row["head"] is None else [row["head"]]
        with ablate(run.model, row["layer"], heads, means):
            assert row["value"] == run.evaluate("test")["loss"]
    assert len({row["value"] for row in rows}) > 8


def test_without_a_method_a_head_passes_nothing_on(run, capsys):
    assert as_json(capsys) == as_json(capsys, "--method", "zero", "--split", "validation")


def test_chosen_heads_are_ablated_alone_and_together(run, capsys):
    found = as_json(capsys, "--metric", "loss", "--layers", "1,0", "--heads", "2")
    assert [(r["layer"], r["head"]) for r in found["ablated"]] == [(0, 2), (1, 2)]
    with prune(run.model, [HeadRef(0, 2), HeadRef(1, 2)]):
        assert found["all_ablated"] == run.evaluate("validation")["loss"]
    whole_layer = as_json(capsys, "--metric", "loss", "--layers", "1")
    assert [r["head"] for r in whole_layer["ablated"]] == [0, 1, 2, 3, None]
    assert whole_layer["all_ablated"] == whole_layer["ablated"][-1]["value"]
    text = as_text(capsys, "--heads", "2", "--metric", "loss")
    assert sum(f"{found['all_ablated']:.4f}" in line.split() for line in text.splitlines()) == 1
    says("commands.ablate.printed_heads", without_numbers(text))


def test_what_is_left_without_several_heads_hangs_on_the_method(run, capsys):
    found = as_json(capsys, "--metric", "loss", "--heads", "2", "--method", "mean")
    with prune(run.model, [HeadRef(0, 2), HeadRef(1, 2)], means_of(run, "validation")):
        assert found["all_ablated"] == run.evaluate("validation")["loss"]


def test_a_layer_of_one_head_is_told_once(offer, capsys):
    offer("dataset=pronoun", "model.mixer.num_heads=1", *SMALL)
    assert [(r["layer"], r["head"]) for r in as_json(capsys)["ablated"]] == [(0, 0), (1, 0)]


def test_tables_show_the_change_from_the_whole(run, capsys):
    for words in ((), ("--prune", "--random", "2")):
        words = (*words, "--metric", "loss", "--heads", "0")
        found, text = as_json(capsys, *words), as_text(capsys, *words)
        rows = found["curve"] if "curve" in found else found["ablated"]
        whole = found["intact"] if "intact" in found else rows[0]["value"]
        assert any(row["value"] != whole for row in rows)
        for at, row in enumerate(rows):
            if row["head"] is None:
                continue
            cells = [f"{row['value']:.4f}", f"{row['value'] - whole:+.4f}"]
            if "random" in found:
                chance = [values[at] for values in found["random"]]
                cells.append(f"{sum(chance) / 2:.4f}")
            (line,) = [s for s in text.splitlines() if s.startswith(f"{row['layer']} ")]
            assert line.split()[-len(cells) :] == cells


def test_importance_stands_beside_the_loss_without_the_head(run, capsys):
    found = as_json(capsys, "--importance", "--split", "test")
    split = run.dataset.splits["test"]
    expected = head_importance(run.subject, split)
    whole = run.evaluate("test")["loss"]
    assert found["loss"] == whole == pytest.approx(expected.loss, rel=1e-5)
    assert heads_of(found["heads"]) == all_heads(run.model)
    for row in found["heads"]:
        head = HeadRef(row["layer"], row["head"])
        assert row["gradient"] == expected.heads[head]
        assert row["normalised"] == expected.normalised_heads[head]
        assert row["expected"] == -expected.slopes[head]
        with prune(run.model, [head]):
            assert row["value"] == run.evaluate("test")["loss"]
        assert row["change"] == row["value"] - whole
    gradients, normalised, changes = (
        [row[of] for row in found["heads"]] for of in ("gradient", "normalised", "change")
    )
    assert found["rank_correlation"] == pytest.approx(spearmanr(gradients, changes)[0])
    assert found["rank_correlation"] != pytest.approx(spearmanr(normalised, changes)[0])
    on_validation, text = as_json(capsys, "--importance"), as_text(capsys, "--importance")
    assert text.split()[-1] == f"{on_validation['rank_correlation']:.2f}"
    says("commands.ablate.printed_importance", without_numbers(text))
    first = head_importance(run.subject, run.dataset.splits["validation"]).heads[HeadRef(0, 0)]
    assert f" {first:.2g} " in text
    assert (
        as_json(capsys, "--importance", "--layers", "0", "--heads", "1")["rank_correlation"] is None
    )


@pytest.mark.parametrize("order", [None, "gradient", "normalised", "ablation", "greedy"])
def test_pruning_removes_every_head_in_order(run, capsys, order):
    words = () if order is None else ("--order", order)
    found = as_json(capsys, "--prune", "--metric", "loss", "--heads", "0,2", *words)
    first, *curve = found["curve"]
    assert (found["order"], found["method"]) == (order or "gradient", "zero")
    assert first == {
        "removed": 0,
        "layer": None,
        "name": None,
        "head": None,
        "value": run.evaluate("validation")["loss"],
    }
    removed = heads_of(curve)
    assert sorted(removed) == [HeadRef(layer, head) for layer in (0, 1) for head in (0, 2)]
    for count, row in enumerate(curve, 1):
        assert row["removed"] == count
        with prune(run.model, removed[:count]):
            assert row["value"] == run.evaluate("validation")["loss"]
    split = run.dataset.splits["validation"]
    gradient = head_importance(run.subject, split)
    alone = {}
    for head in removed:
        with prune(run.model, [head]):
            alone[head] = run.evaluate("validation")["loss"]
    if order in (None, "gradient"):
        assert removed == sorted(removed, key=gradient.heads.__getitem__)
    elif order == "normalised":
        assert removed == sorted(removed, key=gradient.normalised_heads.__getitem__)
    elif order == "ablation":
        assert removed == sorted(removed, key=alone.__getitem__)
    else:
        assert removed[0] == min(alone, key=alone.__getitem__)


@pytest.mark.parametrize("order", ["ablation", "greedy"])
def test_where_removed_heads_have_their_mean_pattern_the_order_is_that_of_such(run, capsys, order):
    words = ("--prune", "--metric", "loss", "--order", order, "--layers", "0")
    curves = [
        as_json(capsys, *words, "--method", method)["curve"][1:] for method in ("zero", "mean")
    ]
    by_zero, by_mean = map(heads_of, curves)
    chosen, means = [HeadRef(0, head) for head in range(4)], means_of(run, "validation")

    def loss() -> float:
        return run.evaluate("validation")["loss"]

    if order == "greedy":
        expected = order_greedily(run.model, chosen, loss, means)
    else:
        expected = sorted(chosen, key=loss_without_each(run.model, chosen, loss, means).__getitem__)
    assert by_mean == expected != by_zero


def test_pruning_to_the_mean_is_another_curve(run, capsys):
    zero, mean = (
        as_json(capsys, "--prune", "--metric", "loss", "--method", m) for m in ("zero", "mean")
    )
    assert [r["head"] for r in zero["curve"]] == [r["head"] for r in mean["curve"]]
    removed = heads_of(mean["curve"][1:])
    with prune(run.model, removed, means_of(run, "validation")):
        assert mean["curve"][-1]["value"] == run.evaluate("validation")["loss"]
    assert zero["curve"][-1]["value"] != mean["curve"][-1]["value"]
    text = as_text(capsys, "--prune", "--method", "mean", "--heads", "0")
    says("commands.ablate.printed_pruning", without_numbers(text))


def test_an_edge_is_cut_in_a_text(run, capsys):
    edge = "it:9"
    found = as_json(capsys, "--edge", edge, "--text", TEXT, "--layers", "1", "--heads", "0,3")
    assert (found["query"], found["key"], found["layers"]) == (IT, WAS, [1])
    assert (found["tokens"][IT], found["tokens"][WAS]) == ("it", "was")
    _, pattern = run.capture(TEXT)[0].patterns.values()
    assert found["heads"] == [
        {"layer": 1, "head": head, "weight": float(pattern[head, IT, WAS])} for head in (0, 3)
    ]
    before = run(TEXT).softmax(dim=0)
    with knock_out_edge(run.model, torch.tensor([IT]), torch.tensor([WAS]), [1], [0, 3]):
        after = run(TEXT).softmax(dim=0)
    assert (before - after).abs().max() > 0.1
    named = {row["output"]: row for row in found["answers"]}
    outputs = list(run.objective.outputs)
    best = {outputs[int(at)] for p in (before, after) for at in p.topk(3).indices}
    assert set(named) == best
    for name, row in named.items():
        at = outputs.index(name)
        assert row["before"] == pytest.approx(float(before[at]), abs=1e-5)
        assert row["after"] == pytest.approx(float(after[at]), abs=1e-5)
    assert [r["before"] for r in found["answers"]] == sorted(
        (r["before"] for r in found["answers"]), reverse=True
    )
    text = as_text(capsys, "--edge", edge, "--text", TEXT)
    assert "L1H3" in text
    says("commands.ablate.printed_edge", text.splitlines()[1])
    for same in ("it:was", "8:9"):
        words = ("--edge", same, "--text", TEXT, "--layers", "1", "--heads", "0,3")
        assert as_json(capsys, *words) == found


def test_of_a_model_with_an_encoder_the_encoders_edges_are_cut(offer, capsys):
    run = offer("dataset=reversal", *SMALL)
    layers = run.model.attention_layers()
    found = as_json(capsys, "--edge", "1:0", "--text", "d a c")
    assert found["begins"]
    assert found["layers"] == [layer.index for layer in layers if layer.axes == Axes()]
    text = as_text(capsys, "--edge", "1:0", "--text", "d a c")
    says("commands.ablate.printed_edge_of_encoder", without_numbers(text).partition(" before ")[0])
    # The encoder sees what comes, though the decoder does not.
    assert as_json(capsys, "--edge", "0:2", "--text", "d a c")["layers"] == found["layers"]
    (decoder,) = [str(layer.index) for layer in layers if layer.path == "blocks.0.cross.attend"]
    words = ["ablate", "untrained", "--edge", "1:0", "--text", "d a c", "--layers", decoder]
    refused(capsys, "commands.ablate.edge_of_decoder", words)


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=reversal",),
        ("dataset=reversal", "variant=lstm_attention"),
        ("dataset=pronoun", "objective=autoencoder", "evidence=none"),
        ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=4"),
    ],
    ids=["seq2seq", "lstm", "autoencoder", "mqar"],
)
def test_every_mode_is_there_for_every_kind_of_attention(offer, capsys, words):
    offer(*words, *SMALL)
    for options in (("--method", "mean"), ("--importance",), ("--prune",)):
        assert as_text(capsys, *options, "--layers", "0", "--heads", "0")


def test_any_split_of_the_data_can_be_measured(offer, capsys):
    run = offer("dataset=parity", *SMALL, "dataset.test_lengths=[50]")
    found = as_json(capsys, "--split", "test_50", "--metric", "loss", "--layers", "0")
    assert found["intact"] == run.evaluate("test_50")["loss"]


WRONG = {
    "split": ["--split", "tset"],
    "metric": ["--metric", "acuracy"],
    "layers": ["--layers", "2"],
    "heads": ["--heads", "1,4"],
    "heads_below_0": ["--heads", "-1"],
    "heads_in_words": ["--heads", "one"],
    "layers_left_open": ["--layers", "0,"],
    "text_alone": ["--text", TEXT],
    "order_alone": ["--order", "greedy"],
    "order_of_importance": ["--importance", "--order", "greedy"],
    "two_modes": ["--importance", "--prune"],
    "method_of_importance": ["--importance", "--method", "mean"],
    "metric_of_importance": ["--importance", "--metric", "loss"],
    "split_of_importance": ["--importance", "--split", "tset"],
    "split_of_prune": ["--prune", "--split", "tset"],
    "edge_alone": ["--edge", "8:1"],
    "edge_empty": ["--edge", "", "--text", TEXT],
    "edge_of_one_end": ["--edge", "8", "--text", TEXT],
    "edge_beyond_text": ["--edge", "8:13", "--text", TEXT],
    "edge_of_no_token": ["--edge", "it:zebra", "--text", TEXT],
    "text_of_no_token": ["--edge", "8:1", "--text", "it was zebra"],
    "split_of_edge": ["--edge", "8:1", "--text", TEXT, "--split", "test"],
    "edge_and_prune": ["--edge", "8:1", "--text", TEXT, "--prune"],
}


def test_a_wrong_request_is_refused(run, capsys):
    requests = {name: ["ablate", "untrained", *words] for name, words in WRONG.items()}
    refusals(capsys, "commands.ablate.{}", requests)


def test_an_edge_that_is_not_there_cannot_be_cut(offer, capsys):
    def without(edge: str, text: str) -> list[str]:
        return ["ablate", "untrained", "--edge", edge, "--text", text]

    offer("dataset=pronoun", "objective.causal=true", *SMALL)
    refused(capsys, "commands.ablate.edge_to_the_future", without("1:8", TEXT))
    refused(capsys, "commands.ablate.edge_that_is_all", without("0:0", TEXT))
    offer("dataset=reversal", "variant=lstm_attention", *SMALL)
    refused(capsys, "commands.ablate.edge_without_layers", without("1:0", "d a c"))
    offer("dataset=pronoun", "variant=lstm", *SMALL)
    refused(capsys, "commands.ablate.no_heads", ["ablate", "untrained", "--importance"])
