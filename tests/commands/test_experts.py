"""`attnlab experts` tells what `evidence.routing` measures, in 80 columns."""

import json

import pytest

from attnlab.analysis.expert_report import expert_report
from attnlab.cli import main
from attnlab.interp.expert_routing import compute_routing
from tests.refusals import refusals, refused

SMALL = ("dataset.num_train=40", "dataset.num_validation=20", "dataset.num_test=20")


def test_it_tells_what_is_measured(offer, capsys):
    run = offer("dataset=pronoun", "variant=moe", *SMALL)
    found = compute_routing(run.subject, run.dataset.splits["validation"])
    assert main(["experts", "untrained", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(layer["layer"], layer["name"]) for layer in printed["layers"]] == [
        (layer.index, layer.path) for layer in found
    ]
    for layer, seen in zip(printed["layers"], found.values(), strict=True):
        assert layer["load"] == pytest.approx(seen.load.tolist())
        assert layer["token_information"] == pytest.approx(seen.token.normalised_information)
        counts = [token["count"] for token in layer["tokens"]]
        assert counts == sorted(counts, reverse=True)
        for token in layer["tokens"]:
            at = list(run.objective.inputs).index(token["token"])
            assert token["count"] == int(seen.assignment_counts[at].sum())
            assert sum(token["shares"]) == pytest.approx(1)
    assert main(["experts", "untrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("load") for line in lines) == 2
    assert sum(line.startswith("what the token tells of its experts") for line in lines) == 2
    titles = ["layer 0 blocks.0.ffn", "layer 1 blocks.1.ffn"]
    assert [line for line in lines if line.startswith("layer ")] == titles
    assert main(["experts", "untrained", "--layer", "1"]) == 0
    assert titles[1] in capsys.readouterr().out.splitlines()
    assert main(["experts", "untrained", "--layer", "1", "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["layers"]
    assert one == printed["layers"][1]


def test_what_is_printed_as_json_is_the_report(offer, capsys):
    run = offer("dataset=pronoun", "variant=moe", *SMALL)
    for words, report in (
        ([], expert_report(run)),
        (["--split", "test", "--layer", "1"], expert_report(run, "test", 1)),
    ):
        assert main(["experts", "untrained", *words, "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == report.to_json()


def test_it_draws_the_loads_or_the_tokens(offer, tmp_path, capsys):
    offer("dataset=pronoun", "variant=moe", *SMALL)
    picture = tmp_path / "experts.svg"
    for words in ([], ["--layer", "0"]):
        assert main(["experts", "untrained", *words, "-o", str(picture)]) == 0
        assert capsys.readouterr().out == f"{picture}\n"
        drawn = picture.read_text()
        assert drawn.startswith("<svg")
        assert ("because" in drawn) == bool(words)


def test_what_cannot_be_printed_is_refused(offer, capsys):
    offer("dataset=pronoun", "variant=moe", *SMALL)
    requests = {
        "layer": ["experts", "untrained", "--layer", "2"],
        "split": ["experts", "untrained", "--split", "tets"],
        "ending": ["experts", "untrained", "-o", "experts.gif"],
    }
    refusals(capsys, "commands.experts.{}", requests)
    offer("dataset=pronoun", "variant=multihead", *SMALL)
    refused(capsys, "commands.experts.none", ["experts", "untrained"])
