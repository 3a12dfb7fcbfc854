"""`attnlab experts` tells what `evidence.routing` measures, in 80 columns."""

import json

import pytest

from attnlab.cli import main
from attnlab.evidence.routing import routing
from tests.untrained import offered

SMALL = ("dataset.num_train=40", "dataset.num_validation=20", "dataset.num_test=20")


@pytest.fixture
def offer(composed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return offered(composed, monkeypatch)


def test_it_tells_what_is_measured(offer, capsys):
    run = offer("dataset=pronoun", "variant=moe", *SMALL)
    found = routing(run.model, run.objective, run.dataset.splits["validation"])
    assert main(["experts", "untrained", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in told["layers"]] == list(found)
    for layer, seen in zip(told["layers"], found.values(), strict=True):
        assert layer["load"] == pytest.approx(seen.load.tolist())
        assert layer["token_information"] == pytest.approx(seen.token.normalised)
        counts = [token["count"] for token in layer["tokens"]]
        assert counts == sorted(counts, reverse=True)
        for token in layer["tokens"]:
            at = list(run.objective.inputs).index(token["token"])
            assert token["count"] == int(seen.table[at].sum())
            assert sum(token["shares"]) == pytest.approx(1)
    assert main(["experts", "untrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("load") for line in lines) == 2
    assert main(["experts", "untrained", "--layer", "1", "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["layers"]
    assert one == told["layers"][1]


@pytest.mark.parametrize("words", [[], ["--layer", "0"]])
def test_it_draws_the_loads_or_the_tokens(offer, tmp_path, capsys, words):
    offer("dataset=pronoun", "variant=moe", *SMALL)
    picture = tmp_path / "experts.svg"
    assert main(["experts", "untrained", *words, "-o", str(picture)]) == 0
    assert capsys.readouterr().out == f"{picture}\n"
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert ("because" in drawn) == bool(words)


@pytest.mark.parametrize(
    ("variant", "words", "message"),
    [
        ("multihead", [], "has no experts; train one with variant=moe"),
        ("moe", ["--layer", "2"], "--layer 2: the run has 2 layers of experts, counted from 0"),
        ("moe", ["--split", "tets"], "there is test, validation, train"),
        ("moe", ["-o", "experts.gif"], "must end in one of .pdf, .png, .svg"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(offer, capsys, variant, words, message):
    offer("dataset=pronoun", f"variant={variant}", *SMALL)
    assert main(["experts", "untrained", *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)
