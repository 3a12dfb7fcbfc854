"""What a report says of a text is what the functions give that it asks."""

import gc
import json
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from attnlab.analysis.attention_maps import VIEWS, AttentionMap
from attnlab.analysis.attention_report import attention_report
from attnlab.analysis.report import SCHEMA
from attnlab.analysis.token_position import token_position
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.interp.attention_flow import LONGEST, attention_flow
from attnlab.interp.circuits import rollout
from attnlab.interp.interventions import knock_out_edge
from attnlab.interp.pattern_stats import entropy
from attnlab.interp.value_norms import weighted_norms
from attnlab.layers import Axes, HeadRef
from attnlab.loaded_run import LoadedRun
from tests.prose import refuses, says
from tests.refused_calls import refused_calls
from tests.unchecked import unchecked_types
from tests.untrained import untrained

TEXT = "The animal didn't cross the street because it was too tired."
SMALL = [f"dataset.num_{split}=20" for split in ("train", "validation", "test")]
BELOW = "model/mixer@model.mixer.a=linear_attention"
RUNS = {
    "multihead": (),
    "hybrid": ("model/mixer=hybrid", BELOW),
    "linear": ("model/mixer=linear_attention",),
    "lstm": ("variant=lstm",),
    "additive": ("model/mixer=additive",),
    "seq2seq": ("dataset=reversal",),
    "seq2seq lstm attention": ("dataset=reversal", "variant=lstm_attention"),
    "mqar": ("dataset=mqar", "dataset.length=128"),
}
ATTENDING = [name for name in RUNS if name not in ("linear", "lstm", "mqar")]


@pytest.fixture(scope="session")
def built(composed) -> Callable[[str], LoadedRun]:
    """Build each run once: no question changes it."""
    small = ("model.num_layers=2", "model.d_model=16", *SMALL)
    return cache(lambda name: untrained(composed(*small, *RUNS[name])))


def text_of(name: str) -> str:
    return "d a c b" if "seq2seq" in name else TEXT


def as_json(run: LoadedRun, monkeypatch, capsys, *words: str):
    monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: run)
    assert main(["attend", "untrained", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "mqar"])
def test_the_command_prints_the_report(built, monkeypatch, capsys, name):
    report = attention_report(built(name), text_of(name), 1).to_json()
    assert as_json(built(name), monkeypatch, capsys, text_of(name), "--query", "1") == report
    assert list(report) == [
        *("schema", "run", "step", "tokens", "query", "answer", "heads", "influence", "cuts"),
        *("view", "shown", "maps"),
    ]
    assert (report["schema"], report["query"], report["view"]) == (SCHEMA, 1, "weights")


@pytest.mark.parametrize("view", VIEWS)
def test_the_command_prints_every_view(built, monkeypatch, capsys, view):
    report = attention_report(built("multihead"), TEXT, view=view).to_json()
    assert as_json(built("multihead"), monkeypatch, capsys, TEXT, "--view", view) == report
    assert report["view"] == view
    weights = attention_report(built("multihead"), TEXT).to_json()
    assert [report[key] == weights[key] for key in ("answer", "influence")] == [True] * 2
    assert (report["heads"] == weights["heads"]) == (view == "weights")


@pytest.mark.parametrize("name", ATTENDING)
def test_layers_have_the_numbers_that_the_model_gives_them(built, name):
    run = built(name)
    by_source = {layer.source: layer for layer in run.model.attention_layers()}
    report = attention_report(run, text_of(name))
    numbered = {each.source: each.layer for each in report.maps if each.layer is not None}
    assert numbered == {source: layer.index for source, layer in by_source.items()}
    own = [layer for layer in by_source.values() if layer.axes == Axes()]
    assert {row.layer for row in report.heads} == {layer.index for layer in own}
    for layer in by_source.values():
        for asked in (layer.index, layer.path, layer.source):
            shown = attention_report(run, text_of(name), layer=asked, head=0).shown
            assert (shown.layer, shown.source, shown.axes) == (
                *(layer.index, layer.source),
                layer.axes,
            )


@pytest.mark.parametrize("view", ["weights", "norms"])
def test_the_head_that_is_shown_has_the_least_entropy_at_the_query(built, view):
    run = built("multihead")
    for query in range(13):
        report = attention_report(run, TEXT, query, view=view)
        entropies: dict[tuple[int | None, int | str], float] = {
            (each.layer, head): float(entropy(torch.from_numpy(rows[None, None]))[0, 0, query])
            for each in report.maps
            if each.layer is not None
            for head, rows in enumerate(each.weights)
        }
        shown = report.shown
        assert entropies[shown.layer, shown.head] == min(entropies.values())
        assert shown.row == query
        mean = attention_report(run, TEXT, query, head="mean", view=view).shown
        assert (mean.layer, mean.head) == (shown.layer, "mean")
        assert np.allclose(mean.weights, mean.map.weights.mean(axis=0))


def test_a_row_that_looks_nowhere_is_not_the_sharpest():
    rows = np.array([[0.0, 0.0], [0.5, 0.5], [0.1, 0.9]], np.float32)
    tokens = ["a", "b"]
    weights = rows[:, None].repeat(2, axis=1)
    one = AttentionMap("", 0, tokens, tokens, weights, "attention", "", Axes(), 1)
    assert one.entropies.argmin() == 2
    assert one.entropies[1] == pytest.approx(np.log(2))


@pytest.mark.parametrize("name", ["multihead", "hybrid", "seq2seq"])
def test_the_answer_without_an_edge_is_that_of_the_model_whose_edge_is_cut(built, name):
    run, text = built(name), text_of(name)
    captured, _ = run.capture(text)
    report = attention_report(run, text)
    query = torch.tensor([report.query])
    assert [(a.output, a.probability) for a in report.answer] == run.answers(captured.answer)
    assert len(report.cuts) == 3
    for each in report.cuts:
        layers = [layer.index for layer in captured.patterns]
        with knock_out_edge(run.model, query, torch.tensor([each.key]), layers):
            assert [(a.output, a.probability) for a in each.answer] == run.answers(run(text))
    assert any(each.answer != report.answer for each in report.cuts)


def strongest(weights: Any) -> list[int]:
    """Give the positions of the largest weights, the largest first."""
    return np.argsort(-np.asarray(weights), kind="stable")[:3].tolist()


@pytest.mark.parametrize("view", ["weights", "norms"])
@pytest.mark.parametrize("choice", [(None, None), (0, 1), (1, 0), (1, "mean")])
def test_the_edges_that_are_cut_are_the_strongest_of_the_row_that_is_drawn(built, view, choice):
    run = built("multihead")
    for query in (2, 8):
        report = attention_report(run, TEXT, query, *choice, view=view)
        drawn = report.shown.weights[query]
        assert [cut.key for cut in report.cuts] == strongest(drawn)
        assert [cut.weight for cut in report.cuts] == [float(drawn[cut.key]) for cut in report.cuts]
        assert {cut.chosen_by for cut in report.cuts} == {report.shown.title}


@pytest.mark.parametrize(
    ("layer", "view"), [("answer", "weights"), (None, "rollout"), (None, "flow")]
)
def test_a_map_without_a_head_is_tested_by_the_edges_of_all_heads_and_that_is_said(
    built, layer, view
):
    run = built("multihead")
    captured, _ = run.capture(TEXT)
    report = attention_report(run, TEXT, 8, layer, view=view)
    total = torch.stack([pattern[:, 8].sum(dim=0) for pattern in captured.patterns.values()]).sum(0)
    assert [cut.key for cut in report.cuts] == total.topk(3).indices.tolist()
    assert {cut.chosen_by for cut in report.cuts} == {"all heads together"}


@pytest.mark.parametrize("name", ["multihead", "hybrid", "seq2seq"])
def test_a_view_has_the_numbers_of_the_function_that_it_is_made_by(built, name):
    run, text = built(name), text_of(name)
    captured, _ = run.capture(text)
    patterns = [rearrange(p, "h q k -> 1 h q k") for p in captured.patterns.values()]
    layers = [layer.index for layer in captured.patterns]
    norms = weighted_norms(run.subject, run.objective.inspection_batch(run.batch_of_text(text)))
    own = {layer.index: n.shares[0] for layer, n in norms.items() if layer.axes == Axes()}
    expected = {
        "norms": own,
        "rollout": {n: r[None] for n, r in zip(layers, rollout(patterns)[0], strict=True)},
        "flow": {None: attention_flow(patterns)},
    }
    for view, by_layer in expected.items():
        report = attention_report(run, text, 1, view=view)
        assert [each.layer for each in report.maps] == list(by_layer)
        for each in report.maps:
            assert np.allclose(each.weights, by_layer[each.layer].numpy(), atol=1e-6)
        rows = [row for each in report.maps for row in each.weights[:, 1].tolist()]
        assert [row.weights for row in report.heads] == rows
        assert all((row.head is None) == (view != "norms") for row in report.heads)


def test_after_the_last_layer_a_rollout_is_shown(built):
    run = built("multihead")
    shown = attention_report(run, TEXT, view="rollout").shown
    assert (shown.layer, shown.head, shown.reason) == (
        1,
        "mean",
        "after the last of 2 attention layers",
    )
    first = attention_report(run, TEXT, view="rollout", layer=0).shown
    assert (first.layer, first.reason) == (0, "")
    assert not np.allclose(first.weights, shown.weights)


def test_where_nothing_attends_what_mixes_is_shown_and_else_the_influence(built):
    assert attention_report(built("linear"), TEXT).shown.map.kind == "mixing"
    report = attention_report(built("lstm"), TEXT)
    assert (report.heads, report.cuts, report.shown.map.kind) == ([], [], "answer")
    assert [each.kind for each in report.maps][-1] == "answer"
    query = report.query
    assert report.shown.weights[query] == pytest.approx(report.influence, abs=1e-6)


def test_what_costs_a_pass_for_each_position_is_computed_where_it_is_asked_for(built, monkeypatch):
    run = built("multihead")
    monkeypatch.setattr(
        LoadedRun, "mixing_patterns", lambda *_: pytest.fail("the maps were computed")
    )
    report = attention_report(run, TEXT, maps=False)
    assert report.shown.layer in (0, 1)
    assert [each.layer for each in report.maps] == [0, 1]
    assert attention_report(run, TEXT, layer=1, head="mean", maps=False).shown.head == "mean"
    assert len(attention_report(run, TEXT, view="rollout").maps) == 2


@pytest.mark.parametrize("view", VIEWS)
def test_asking_leaves_the_model_as_it_was(built, view):
    run = built("multihead")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    state = torch.random.get_rng_state()
    attention_report(run, TEXT, view=view).to_json()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[name]) for name, v in run.model.state_dict().items())
    assert not any(module._forward_hooks for module in run.model.modules())


@pytest.mark.parametrize("name", ["multihead", "linear", "lstm"])
def test_a_report_outlives_its_model_unchanged(composed, name):
    run = untrained(composed("model.num_layers=2", "model.d_model=16", *SMALL, *RUNS[name]))
    report, expected = attention_report(run, TEXT), attention_report(run, TEXT).to_json()
    with torch.no_grad():
        vector = parameters_to_vector(run.model.parameters())
        vector_to_parameters(vector / 2, run.model.parameters())
    assert report.to_json() == expected != attention_report(run, TEXT).to_json()
    model = weakref.ref(run.model)
    del run
    gc.collect()
    assert model() is None


def test_a_map_is_called_as_its_layer_is(built):
    layers = {name: built(name).model.mixing_layers() for name in ("linear", "lstm", "hybrid")}
    for name, mixing_layers in layers.items():
        report = attention_report(built(name), TEXT)
        mixed = [each for each in report.maps if each.kind in ("mixing", "traced")]
        assert [each.name for each in mixed] == [layer.name for layer in mixing_layers]
    assert (
        attention_report(built("linear"), TEXT, layer=0, head=0).shown.title
        == "mixing layer 0, head 0"
    )


def test_a_layer_and_head_are_chosen_by_any_number_or_by_a_head(built):
    run = built("multihead")
    expected = attention_report(run, TEXT, 8, 1, 2).to_json()
    for query, layer, head in [
        (np.int64(8), np.int64(1), torch.tensor(2)),
        ("8", "1", "2"),
        (8, None, HeadRef(1, 2)),
        (8, 1, HeadRef(1, 2)),
    ]:
        assert attention_report(run, TEXT, query, layer, head).to_json() == expected
    calls = {
        "layer_half": lambda: attention_report(run, TEXT, layer=0.5),  # pyright: ignore
        "head_pair": lambda: attention_report(run, TEXT, head=(0, 1)),  # pyright: ignore
        "query_half": lambda: attention_report(run, TEXT, query=0.5),  # pyright: ignore
        "other_layer": lambda: attention_report(run, TEXT, layer=0, head=HeadRef(1, 2)),
        "no_head": lambda: attention_report(run, TEXT, head=HeadRef(1, 9)),
    }
    with unchecked_types():
        refused_calls("analysis.attention.choice_{}", calls)


def test_a_view_that_does_not_fit_is_refused(built):
    def refused(key: str, name: str, text: str, **how) -> None:
        with refuses(RequestError, f"analysis.attention.{key}", "untrained"):
            attention_report(built(name), text, **how)

    for view in ("norms", "rollout", "flow"):
        refused(f"no_attention_{view}", "lstm", TEXT, view=view)
    refused("no_attention_within", "seq2seq lstm attention", "d a c", view="rollout")
    refused("no_values", "additive", TEXT, view="norms")
    refused("head_of_rollout", "multihead", TEXT, view="rollout", head=1)
    refused("layer_of_rollout", "multihead", TEXT, view="rollout", layer=2)
    refused("layer_of_flow", "multihead", TEXT, view="flow", layer=0)
    refused("answer_of_norms", "multihead", TEXT, view="norms", layer="answer")
    refused("no_view", "multihead", TEXT, view="wieghts")
    run = built("mqar")
    long = " ".join(run.dataset.tokens[at % 50 + 1] for at in range(LONGEST + 1))
    refused("long_flow", "mqar", long, view="flow")
    assert len(attention_report(run, long, view="rollout").tokens) == LONGEST + 1


def test_what_is_not_there_is_refused_at_once(built):
    run = built("multihead")
    for layer, head, query in ((2, 0, 0), (-1, 0, 0), (0, 4, 0), (0, "-1", 0), (0, 0, 13)):
        with pytest.raises(RequestError):
            attention_report(run, TEXT, query, layer, head)


def test_a_view_is_named_on_the_screen_and_drawn(built, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: built("multihead"))
    monkeypatch.setenv("COLUMNS", "80")
    for view in ("norms", "rollout", "flow"):
        words = ["attend", "untrained", TEXT, "--view", view]
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        about = " ".join(" ".join(lines[3:6]).partition(" down:")[0].split())
        says(f"analysis.attention.title_{view}", about)
        (legend,) = [line for line in lines if line.startswith(("LxHy", "Lx:", "flow:"))]
        says(f"analysis.attention.legend_{view}", legend)
        picture = tmp_path / f"{view}.svg"
        assert main([*words, "-o", str(picture)]) == 0
        title = {"norms": "heads, norms<", "rollout": "layers, rollout<", "flow": ": flow through"}
        assert title[view] in picture.read_text()
        capsys.readouterr()


def test_forms_that_have_the_weights_refuse_another_view(built, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: built("multihead"))
    forms = (["--format", "bertviz"], ["-o", str(tmp_path / "map.npz")])
    for words in forms:
        assert main(["attend", "untrained", TEXT, "--view", "flow", *words]) == 2
        says("analysis.attention.view_of_weights", capsys.readouterr().err)


def test_a_token_is_meant_before_a_position():
    tokens = ["7", "1", "x", "1"]
    words: dict[str | int, int | None] = {"1": 3, "7": 0, "2": 2, "4": None, "y": None}
    assert {word: token_position(word, tokens) for word in words} == words
    assert [token_position(at, tokens) for at in (1, 3, 4, -1)] == [1, 3, None, None]
