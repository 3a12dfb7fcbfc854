"""`attnlab ablate --twins` prints what patching finds, and `--prune -o` draws what it prints."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnlab.analysis.ablations.patching_report import answer_positions
from attnlab.cli import main
from attnlab.figures import base
from attnlab.figures.pruning import NAMED, draw_pruning
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.importance import loss_without_each, shuffle_heads
from attnlab.interp.interventions import prune
from attnlab.interp.patching import patch
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun
from attnlab.split import Batch, Examples
from tests.commands.test_ablate import SMALL, as_json, as_text, heads_of
from tests.printed import without_numbers
from tests.prose import refuses, says
from tests.refusals import refusals, refused


@pytest.fixture
def run(offer) -> LoadedRun:
    return offer("dataset=pronoun", *SMALL)


def test_every_head_is_given_its_twins_pattern(run, capsys):
    found = as_json(capsys, "--twins")
    twins = run.dataset.contrast_pairs()
    assert (found["pairs"], found["query"]) == (len(twins[0]), None)
    assert heads_of(found["heads"]) == all_heads(run.model)
    for row in found["heads"]:
        expected = patch(run.subject, twins, heads_of([row]))
        assert row["effect"] == expected.normalised_effect
        assert row["patched"] == float(expected.patched.mean())
        assert row["name"] == f"blocks.{row['layer']}.mixer.attend"
        assert found["original"] == float(expected.original.mean())
        assert found["counterpart"] == float(expected.counterpart.mean())
    everything = patch(run.subject, twins, all_heads(run.model))
    assert found["all_heads"]["effect"] == everything.normalised_effect
    text = as_text(capsys, "--twins")
    says("commands.ablate.printed_twins", without_numbers(text))
    assert re.search(rf"all of these +\S+ +{everything.normalised_effect:.3f}\n", text)
    rows = [line.split() for line in text.splitlines() if line[:2] in ("A ", "B ")]
    assert rows == [
        ["A", f"{found['original']:+.3f}", "0.000"],
        ["B", f"{found['counterpart']:+.3f}", "1.000"],
    ]
    assert found["original"] != found["counterpart"]
    assert not any(module._forward_hooks for module in run.model.modules())


def last(token: str, run: LoadedRun) -> Callable[[Batch], torch.Tensor]:
    """Find the last occurrence of a token, one sequence at a time."""
    number = list(run.objective.inputs).index(token)
    return lambda batch: torch.tensor(
        [max(at for at, t in enumerate(row) if t == number) for row in batch.inputs.tolist()]
    )


@pytest.mark.parametrize("causal", ["false", "true"])
def test_only_the_row_of_a_query_is_given_where_one_is_named(offer, capsys, causal):
    run = offer("dataset=pronoun", f"objective.causal={causal}", *SMALL)
    twins, chosen = run.dataset.contrast_pairs(), [HeadRef(0, 1), HeadRef(1, 1)]
    asked = last("it" if causal == "false" else ".", run)
    named = [(token, last(token, run)) for token in ("it", "the") if causal == "false"]
    for query, place in (("asked", asked), *named):
        found = as_json(capsys, "--twins", "--query", query, "--heads", "1")
        assert heads_of(found["heads"]) == chosen
        for row in found["heads"]:
            expected = patch(run.subject, twins, heads_of([row]), query_at=place)
            assert row["effect"] == expected.normalised_effect
        everything = patch(run.subject, twins, chosen, query_at=place)
        assert found["all_heads"]["effect"] == everything.normalised_effect
    text = as_text(capsys, "--twins", "--query", "it", "--heads", "1")
    says("commands.ablate.printed_twins_of_a_query", without_numbers(text))


def test_what_has_no_twins_or_no_such_query_is_refused(offer, run, capsys, monkeypatch):
    def asked(*words: str) -> list[str]:
        return ["ablate", "untrained", *words]

    one, other = run.dataset.contrast_pairs()
    number = list(run.objective.inputs).index("tired")
    lacking = sum(
        not all(number in side.inputs[pair].tolist() for side in (one, other))
        for pair in range(len(one))
    )
    # What fills a sequence up is no token of it.
    assert not one.valid.all()
    requests = {
        "query_of_no_token": asked("--twins", "--query", "zebra"),
        "query_of_some_pairs": asked("--twins", "--query", "tired"),
        "query_of_padding": asked("--twins", "--query", run.objective.inputs[0]),
        "query_alone": asked("--query", "it"),
        "split_of_twins": asked("--twins", "--split", "test"),
        "twins_and_prune": asked("--twins", "--prune"),
    }
    counts = (f"{lacking} of {len(one)}", f"{len(one)} of {len(one)}")
    refusals(capsys, "commands.ablate.{}", requests, *counts)
    twice = Batch(one.inputs[:2], one.targets[:2], torch.tensor([[0, 1], [0, 1]]))
    with refuses(ValueError, "commands.ablate.two_questions"):
        answer_positions(twice)
    with torch.no_grad():
        run.model.get_parameter("head.weight").zero_()
        run.model.get_parameter("head.bias").zero_()
    refused(capsys, "commands.ablate.twins_alike", asked("--twins"))
    none = [Examples(*(a[:0] for a in side.arrays)) for side in run.dataset.contrast_pairs()]
    monkeypatch.setattr(type(run.dataset), "contrast_pairs", lambda _: none)
    refused(capsys, "commands.ablate.no_twin", asked("--twins"))
    offer("dataset=reversal", *SMALL)
    refused(capsys, "commands.ablate.data_without_twins", asked("--twins"))


def test_random_orders_stand_beside_the_one_that_is_meant(run, capsys):
    found = as_json(capsys, "--prune", "--metric", "loss", "--heads", "0,2", "--random", "2")
    assert "random" not in as_json(capsys, "--prune", "--heads", "0")
    chosen = [HeadRef(layer, head) for layer in (0, 1) for head in (0, 2)]
    for seed, values in enumerate(found["random"]):
        order = shuffle_heads(chosen, seed)
        assert sorted(order) == chosen
        for removed, value in enumerate(values):
            with prune(run.model, order[:removed]):
                assert value == run.evaluate("validation")["loss"]
    assert len({tuple(shuffle_heads(chosen, seed)) for seed in range(9)}) > 3
    text = as_text(capsys, "--prune", "--random", "2", "--heads", "0")
    says("commands.ablate.printed_random", without_numbers(text))
    losses = loss_without_each(run.model, chosen, lambda: run.evaluate("validation")["loss"])
    ordered = as_json(capsys, "--prune", "--order", "ablation", "--heads", "0,2")["curve"][1:]
    assert heads_of(ordered) == sorted(chosen, key=losses.__getitem__)


def test_a_curve_is_drawn_into_a_file(run, capsys, tmp_path):
    path = tmp_path / "curve.svg"
    words = ["--prune", "--heads", "0", "--method", "mean", "--random", "1", "-o", str(path)]
    assert main(["ablate", "untrained", *words]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    drawn = path.read_text()
    assert drawn.startswith("<svg")
    says("commands.ablate.drawn", " / ".join(re.findall(r">([^<>]{25,})</text>", drawn)))


def test_a_file_that_cannot_be_drawn_is_refused(run, capsys, tmp_path):
    path, missing = str(tmp_path / "curve.png"), str(tmp_path / "none" / "curve.png")
    requests = {
        "output_alone": ["-o", path],
        "output_of_twins": ["--twins", "-o", path],
        "output_ending": ["--prune", "-o", "curve.gif"],
        "output_directory": ["--prune", "-o", missing],
        "output_and_json": ["--prune", "-o", path, "--format", "json"],
        "random_0": ["--prune", "--random", "0"],
        "random_alone": ["--random", "2"],
    }
    requests = {name: ["ablate", "untrained", *words] for name, words in requests.items()}
    refusals(capsys, "commands.ablate.{}", requests, tmp_path)
    assert not Path(path).exists()


def test_the_figure_has_every_value_and_the_band_of_all_random_orders():
    values, chance = [0.9, 0.8, 0.4], [[0.9, 0.5, 0.4], [0.9, 0.7, 0.4]]
    figure = draw_pruning(values, ["L1H0", "L0H3"], "accuracy", "by gradient", "a run", chance)
    data = figure.to_dict()["data"]["values"]
    meant = [row for row in data if row["order"] == "by gradient"]
    assert [(r["removed"], r["value"], r["head"]) for r in meant] == [
        (0, 0.9, ""),
        (1, 0.8, "L1H0"),
        (2, 0.4, "L0H3"),
    ]
    band = [row for row in data if row["order"] == "random order, mean of 2"]
    assert [r["low"] for r in band] == [0.9, 0.5, 0.4]
    assert [r["high"] for r in band] == [0.9, 0.7, 0.4]
    assert [r["value"] for r in band] == pytest.approx([0.9, 0.6, 0.4])
    text = base.render_svg(figure)
    for word in ("accuracy as heads are removed", "a run", "L1H0", "L0H3", "by gradient"):
        assert f">{word}<" in text
    assert "random order" not in base.render_svg(
        draw_pruning(values, ["L1H0", "L0H3"], "accuracy", "by g")
    )


def test_many_heads_are_counted_and_not_named():
    heads = [f"L0H{head}" for head in range(NAMED + 1)]
    text = base.render_svg(draw_pruning([0.5] * (NAMED + 2), heads, "accuracy", "by gradient"))
    assert "L0H" not in text
    assert base.render_pdf(
        draw_pruning([0.5] * (NAMED + 2), heads, "loss", "by gradient")
    ).startswith(b"%PDF")
    with refuses(ValueError, "commands.ablate.curve_of_other_heads"):
        draw_pruning([0.5], heads, "accuracy", "by gradient")
