"""`attnlab ablate` prints what Python finds in each of its modes, and refuses the rest."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from attnlab.cli import main
from attnlab.commands.ablate.edge import _ends
from attnlab.evidence.importance import alone, greedy, importance
from attnlab.evidence.intervene import (
    Means,
    ablate,
    attention_layers,
    cut,
    every_head,
    mean_patterns,
    prune,
    questions,
)
from attnlab.trained import Trained

TEXT = "The animal didn't cross the street because it was too tired."
IT, WAS = 8, 9
SMALL = [f"dataset.num_{split}=24" for split in ("train", "validation", "test")]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(offer) -> Iterator[Trained]:
    """A run of `pronoun`, which no command changes."""
    made = offer("dataset=pronoun", *SMALL)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    state = torch.random.get_rng_state()
    yield made
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[name]) for name, v in made.model.state_dict().items())
    assert not any(module._forward_hooks for module in made.model.modules())
    assert not made.model.training


def said(capsys, *words: str) -> dict[str, Any]:
    assert main(["ablate", "untrained", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def shown(capsys, *words: str) -> str:
    assert main(["ablate", "untrained", *words]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    return text


def means_of(run: Trained, split: str) -> Means:
    asked = questions(run.model, run.objective, run.dataset.splits[split])
    return mean_patterns(run.model, asked)


@pytest.mark.parametrize("method", ["zero", "mean"])
def test_heads_are_ablated_by_either_method(run, capsys, method):
    found = said(capsys, "--metric", "loss", "--split", "test", "--method", method)
    means = means_of(run, "test") if method == "mean" else None
    about = {"schema": 1, "run": "untrained", "step": 7, "split": "test", "metric": "loss"}
    rows = found.pop("without")
    assert found == {**about, "method": method, "whole": run.evaluate("test")["loss"]} | {
        "together": None
    }
    assert [(r["layer"], r["head"]) for r in rows] == [
        (layer, head) for layer in (0, 1) for head in (0, 1, 2, 3, None)
    ]
    assert {r["name"] for r in rows} == set(attention_layers(run.model))
    for row in rows:
        heads = None if row["head"] is None else [row["head"]]
        with ablate(run.model, row["layer"], heads, means):
            assert row["value"] == run.evaluate("test")["loss"]
    assert len({row["value"] for row in rows}) > 8


def test_without_a_method_a_head_passes_nothing_on(run, capsys):
    assert said(capsys) == said(capsys, "--method", "zero", "--split", "validation")


def test_chosen_heads_are_ablated_alone_and_together(run, capsys):
    found = said(capsys, "--metric", "loss", "--layers", "1,0", "--heads", "2")
    assert [(r["layer"], r["head"]) for r in found["without"]] == [(0, 2), (1, 2)]
    with prune(run.model, [(0, 2), (1, 2)]):
        assert found["together"] == run.evaluate("validation")["loss"]
    whole_layer = said(capsys, "--metric", "loss", "--layers", "1")
    assert [r["head"] for r in whole_layer["without"]] == [0, 1, 2, 3, None]
    assert whole_layer["together"] == whole_layer["without"][-1]["value"]
    assert "all of these" in shown(capsys, "--heads", "2")


def test_what_is_left_without_several_heads_hangs_on_the_method(run, capsys):
    found = said(capsys, "--metric", "loss", "--heads", "2", "--method", "mean")
    with prune(run.model, [(0, 2), (1, 2)], means_of(run, "validation")):
        assert found["together"] == run.evaluate("validation")["loss"]


def test_a_layer_of_one_head_is_told_once(offer, capsys):
    offer("dataset=pronoun", "model.mixer.num_heads=1", *SMALL)
    assert [(r["layer"], r["head"]) for r in said(capsys)["without"]] == [(0, 0), (1, 0)]


def test_tables_show_the_change_from_the_whole(run, capsys):
    for words in ((), ("--prune", "--random", "2")):
        words = (*words, "--metric", "loss", "--heads", "0")
        found, text = said(capsys, *words), shown(capsys, *words)
        rows = found["curve"] if "curve" in found else found["without"]
        whole = found["whole"] if "whole" in found else rows[0]["value"]
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
    found = said(capsys, "--importance", "--split", "test")
    split = run.dataset.splits["test"]
    expected = importance(run.model, run.objective, questions(run.model, run.objective, split))
    whole = run.evaluate("test")["loss"]
    assert found["loss"] == whole == pytest.approx(expected.loss, rel=1e-5)
    assert [(r["layer"], r["head"]) for r in found["heads"]] == every_head(run.model)
    for row in found["heads"]:
        head = row["layer"], row["head"]
        assert row["gradient"] == expected.heads[head]
        assert row["normalised"] == expected.normalised[head]
        assert row["expected"] == -expected.slopes[head]
        with prune(run.model, [head]):
            assert row["value"] == run.evaluate("test")["loss"]
        assert row["change"] == row["value"] - whole
    gradients, normalised, changes = (
        [row[of] for row in found["heads"]] for of in ("gradient", "normalised", "change")
    )
    assert found["rank_correlation"] == pytest.approx(spearmanr(gradients, changes)[0])
    assert found["rank_correlation"] != pytest.approx(spearmanr(normalised, changes)[0])
    text = shown(capsys, "--importance")
    assert "rank correlation of gradient and change" in text
    first = importance(
        run.model,
        run.objective,
        questions(run.model, run.objective, run.dataset.splits["validation"]),
    ).heads[0, 0]
    assert f" {first:.2g} " in text
    assert said(capsys, "--importance", "--layers", "0", "--heads", "1")["rank_correlation"] is None


@pytest.mark.parametrize("order", [None, "gradient", "normalised", "ablation", "greedy"])
def test_pruning_removes_every_head_in_order(run, capsys, order):
    words = () if order is None else ("--order", order)
    found = said(capsys, "--prune", "--metric", "loss", "--heads", "0,2", *words)
    first, *curve = found["curve"]
    assert (found["order"], found["method"]) == (order or "gradient", "zero")
    assert first == {
        "removed": 0,
        "layer": None,
        "name": None,
        "head": None,
        "value": run.evaluate("validation")["loss"],
    }
    removed = [(row["layer"], row["head"]) for row in curve]
    assert sorted(removed) == [(layer, head) for layer in (0, 1) for head in (0, 2)]
    for count, row in enumerate(curve, 1):
        assert row["removed"] == count
        with prune(run.model, removed[:count]):
            assert row["value"] == run.evaluate("validation")["loss"]
    split = run.dataset.splits["validation"]
    gradient = importance(run.model, run.objective, questions(run.model, run.objective, split))
    alone = {}
    for head in removed:
        with prune(run.model, [head]):
            alone[head] = run.evaluate("validation")["loss"]
    if order in (None, "gradient"):
        assert removed == sorted(removed, key=gradient.heads.__getitem__)
    elif order == "normalised":
        assert removed == sorted(removed, key=gradient.normalised.__getitem__)
    elif order == "ablation":
        assert removed == sorted(removed, key=alone.__getitem__)
    else:
        assert removed[0] == min(alone, key=alone.__getitem__)


@pytest.mark.parametrize("order", ["ablation", "greedy"])
def test_where_removed_heads_have_their_mean_pattern_the_order_is_that_of_such(run, capsys, order):
    words = ("--prune", "--metric", "loss", "--order", order, "--layers", "0")
    curves = [said(capsys, *words, "--method", method)["curve"][1:] for method in ("zero", "mean")]
    by_zero, by_mean = ([(row["layer"], row["head"]) for row in curve] for curve in curves)
    chosen, means = [(0, head) for head in range(4)], means_of(run, "validation")

    def loss() -> float:
        return run.evaluate("validation")["loss"]

    if order == "greedy":
        expected = greedy(run.model, chosen, loss, means)
    else:
        expected = sorted(chosen, key=alone(run.model, chosen, loss, means).__getitem__)
    assert by_mean == expected != by_zero


def test_pruning_to_the_mean_is_another_curve(run, capsys):
    zero, mean = (
        said(capsys, "--prune", "--metric", "loss", "--method", m) for m in ("zero", "mean")
    )
    assert [r["head"] for r in zero["curve"]] == [r["head"] for r in mean["curve"]]
    removed = [(row["layer"], row["head"]) for row in mean["curve"][1:]]
    with prune(run.model, removed, means_of(run, "validation")):
        assert mean["curve"][-1]["value"] == run.evaluate("validation")["loss"]
    assert zero["curve"][-1]["value"] != mean["curve"][-1]["value"]
    assert "mean patterns" in shown(capsys, "--prune", "--method", "mean")


@pytest.mark.parametrize("edge", ["it:was", "8:9", "it:9"])
def test_an_edge_is_cut_in_a_text(run, capsys, edge):
    found = said(capsys, "--edge", edge, "--text", TEXT, "--layers", "1", "--heads", "0,3")
    assert (found["query"], found["key"], found["layers"]) == (IT, WAS, [1])
    assert (found["tokens"][IT], found["tokens"][WAS]) == ("it", "was")
    _, pattern = run.look(TEXT)[0].patterns.values()
    assert found["heads"] == [
        {"layer": 1, "head": head, "weight": float(pattern[head, IT, WAS])} for head in (0, 3)
    ]
    before = run(TEXT).softmax(dim=0)
    with cut(run.model, torch.tensor([IT]), torch.tensor([WAS]), [1], [0, 3]):
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
    text = shown(capsys, "--edge", edge, "--text", TEXT)
    assert "without it at 8 -> was at 9" in text
    assert "L1H3" in text


def test_a_token_of_an_edge_may_have_a_colon():
    assert _ends("a:b:c", ["c", "a:b"]) == (1, 0)
    assert _ends("c:a:b", ["c", "a:b"]) == (0, 1)


def test_of_a_model_with_an_encoder_the_encoders_edges_are_cut(offer, capsys):
    run = offer("dataset=reversal", *SMALL)
    names = attention_layers(run.model)
    found = said(capsys, "--edge", "1:0", "--text", "d a c")
    assert found["begins"]
    assert found["layers"] == [at for at, name in enumerate(names) if name.startswith("encoder.")]
    assert "answer begins" in shown(capsys, "--edge", "1:0", "--text", "d a c")
    # The encoder sees what comes, though the decoder does not.
    assert said(capsys, "--edge", "0:2", "--text", "d a c")["layers"] == found["layers"]
    decoder = str(names.index("blocks.0.cross.attend"))
    words = ["ablate", "untrained", "--edge", "1:0", "--text", "d a c", "--layers", decoder]
    assert main(words) == 2
    assert "see one another in layers" in capsys.readouterr().err


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
        shown(capsys, *options, "--heads", "0")
        assert said(capsys, *options, "--layers", "0", "--heads", "0")["schema"] == 1


def test_any_split_of_the_data_can_be_measured(offer, capsys):
    run = offer("dataset=parity", *SMALL, "dataset.test_lengths=[50]")
    found = said(capsys, "--split", "test_50", "--metric", "loss", "--layers", "0")
    assert found["whole"] == run.evaluate("test_50")["loss"]


WRONG = [
    (["--split", "tset"], "no tset split; there is"),
    (["--metric", "acuracy"], "no metric 'acuracy'"),
    (["--layers", "2"], "--layers 2: the model has 2 attention layers"),
    (["--heads", "1,4"], "--heads 4: layer 0 has 4 heads"),
    (["--heads", "-1"], "--heads -1: expected numbers"),
    (["--heads", "one"], "--heads one: expected numbers"),
    (["--layers", "0,"], "--layers 0,: expected numbers"),
    (["--text", TEXT], "--text needs --edge"),
    (["--order", "greedy"], "--order needs --prune"),
    (["--importance", "--order", "greedy"], "--order needs --prune"),
    (["--importance", "--prune"], "two questions"),
    (["--importance", "--method", "mean"], "--method has no meaning with --importance"),
    (["--importance", "--metric", "loss"], "--metric has no meaning with --importance"),
    (["--importance", "--split", "tset"], "no tset split"),
    (["--prune", "--split", "tset"], "no tset split"),
    (["--edge", "8:1"], "--edge needs a sentence"),
    (["--edge", "", "--text", TEXT], "expected QUERY:KEY"),
    (["--edge", "8", "--text", TEXT], "expected QUERY:KEY"),
    (["--edge", "8:13", "--text", TEXT], "a position below 13"),
    (["--edge", "it:zebra", "--text", TEXT], "expected QUERY:KEY"),
    (["--edge", "8:1", "--text", "it was zebra"], "has no token 'zebra'"),
    (["--edge", "8:1", "--text", TEXT, "--split", "test"], "--split has no meaning with --edge"),
    (["--edge", "8:1", "--text", TEXT, "--prune"], "two questions"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda w: " ".join(w)[:40] if w else "")
def test_a_wrong_request_is_refused_in_one_line(run, capsys, words, message):
    assert main(["ablate", "untrained", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_an_edge_that_is_not_there_cannot_be_cut(offer, capsys):
    offer("dataset=pronoun", "objective.causal=true", *SMALL)
    for edge, message in (("1:8", "does not see 'it' at 8"), ("0:0", "all that its query sees")):
        assert main(["ablate", "untrained", "--edge", edge, "--text", TEXT]) == 2
        assert message in capsys.readouterr().err
    offer("dataset=reversal", "variant=lstm_attention", *SMALL)
    assert main(["ablate", "untrained", "--edge", "1:0", "--text", "d a c"]) == 2
    assert "no layer of untrained" in capsys.readouterr().err
    offer("dataset=pronoun", "variant=lstm", *SMALL)
    assert main(["ablate", "untrained", "--importance"]) == 2
    assert "has no attention heads" in capsys.readouterr().err
