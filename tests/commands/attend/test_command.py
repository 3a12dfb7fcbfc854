"""`attnlab attend` says which map it shows, fits the terminal, and writes what other tools read."""

import json
import re

import numpy as np
import pytest
from rich.cells import cell_len

from attnlab.cli import main
from tests.commands.attend.conftest import RUNS, TEXT, shown
from tests.prose import says
from tests.refusals import UNBROKEN, refusals

SHORT = "it was too tired."
BELOW = "model/mixer@model.mixer.a=linear_attention"
CROSS = [f"blocks.{layer}.cross.attend.pattern" for layer in (0, 1)]


READS = r"queries \((.*?)\); across: keys \((.*?)\)"


def title(text: str) -> str:
    """Return what is said of the map, between the first empty line and its axes."""
    return " ".join(text.split("\n\n")[1].split("queries (")[0].split()[:-1])


def rows(text: str) -> list[str]:
    """List the rows of the map, which stands after the first empty line."""
    return re.findall(r"^[ >] *\d+ \S.*$", text.split("\n\n")[1], re.MULTILINE)


@pytest.mark.parametrize("name", RUNS)
def test_every_run_shows_a_map_within_the_columns_and_50_lines(offer, capsys, monkeypatch, name):
    _, text = offer(name)
    columns = 80 if name in ("multihead", "linear") else 40
    monkeypatch.setenv("COLUMNS", str(columns))
    out = shown(capsys, text)
    assert max(map(cell_len, out.splitlines())) <= columns
    assert columns == 40 or len(out.splitlines()) < 50
    says("commands.attend.no_explanation", " ".join(out.split()).rpartition("A weight ")[2])


def test_every_query_of_the_text_has_a_row_with_the_digits_of_the_look(offer, capsys):
    run, text = offer("multihead")
    captured, _ = run.capture(text)
    for layer, pattern in enumerate(captured.patterns.values()):
        for head, weights in [(layer, pattern[layer]), ("mean", pattern.mean(dim=0))]:
            out = shown(capsys, text, "--layer", str(layer), "--head", str(head), "--map")
            found = rows(out)
            assert len(found) == len(captured.inputs)
            for line, row in zip(found, weights.tolist(), strict=True):
                digits = [float(number) for number in re.findall(r"(?<!\S\d)\d?\.\d+", line)]
                there = [weight for weight in row if weight]
                assert digits[-len(there) :] == pytest.approx(there, abs=0.051), line


def test_the_head_that_is_shown_is_the_one_that_is_sharpest_at_the_query(offer, capsys):
    run, text = offer("multihead")
    captured, _ = run.capture(text)
    named = [f"{at} ({run.objective.inputs[token]})" for at, token in enumerate(captured.inputs)]
    for query in (3, 8, 12):
        entropies = {}
        for layer, pattern in enumerate(captured.patterns.values()):
            for head, row in enumerate(pattern[:, query].double()):
                there = row[row > 0]
                entropies[layer, head] = float(-(there * there.log()).sum())
        layer, head = min(entropies, key=lambda at: entropies[at])
        out = shown(capsys, text, "--query", str(query))
        assert title(out).startswith(f"layer {layer}, head {head}: ")
        says("commands.attend.sharpest", title(out).partition(": ")[2], named[query])
        out = shown(capsys, text, "--query", str(query), "--head", "mean")
        assert title(out).startswith(f"layer {layer}, mean of heads: ")
        says("commands.attend.sharpest_layer", title(out).partition(": ")[2], named[query])
        head = min(range(4), key=lambda head: entropies[0, head])
        out = shown(capsys, text, "--query", str(query), "--layer", "0")
        assert title(out).startswith(f"layer 0, head {head}: ")


def test_where_nothing_attends_the_sharpest_mixing_matrix_is_shown(offer, capsys):
    run, text = offer("linear")
    captured, _ = run.capture(text)
    entropies = {}
    for layer, weights in captured.weights.items():
        for head, row in enumerate(weights[:, captured.answer_position].double()):
            there = row[row > 0]
            entropies[layer.name, head] = float(-(there * there.log()).sum())
    assert len(entropies) == 8
    name, head = min(entropies, key=lambda at: entropies[at])
    out = title(shown(capsys, text))
    assert out.startswith(f"{name}, head {head}: ")
    says("commands.attend.sharpest_mixing", out.partition(": ")[2], captured.answer_position)


def test_why_a_layer_is_shown_is_said_of_what_it_was_chosen_from(offer, capsys):
    for name, *words in (("seq2seq",), ("multihead", "model.mixer.num_heads=1")):
        _, text = offer(name, *words)
        chosen_from = title(shown(capsys, text)).partition("; ")[2]
        says(f"commands.attend.chosen_from.{name}", chosen_from)


def test_signs_that_move_the_screen_are_escaped(offer, capsys, monkeypatch):
    run, text = offer("multihead")
    tokens = ["\x1b[2J" if token == "it" else token for token in run.objective.inputs]
    monkeypatch.setattr(type(run.objective), "inputs", tokens)
    out = shown(capsys, text, "--query", "8")
    assert "\x1b" not in out
    assert out.count(r"\x1b[2J at 8 ->") == 3


def test_what_does_not_attend_is_never_called_attention(offer, capsys, tmp_path):
    for name, *words in (("lstm",), ("linear", "model.mixer.num_heads=1")):
        offer(name, *words)
        out = shown(capsys, SHORT)
        kind = re.sub(r"blocks\.\d", "blocks", title(out).partition("; ")[0])
        says(f"commands.attend.not_attention.{name}", kind)
        picture = tmp_path / "map.svg"
        shown(capsys, SHORT, "-o", str(picture))
        drawn = picture.read_text()
        assert {"lstm": "influence", "linear": "mixing"}[name] in drawn
        assert "ttention" not in out + drawn


def test_a_picture_has_all_heads_or_the_one_that_is_chosen_and_the_answer(offer, capsys, tmp_path):
    offer("multihead", "model.mixer.num_heads=2")
    for words, count in ([], 4), (["--layer", "1", "--head", "mean"], 0):
        picture = tmp_path / "map.svg"
        shown(capsys, SHORT, "-o", str(picture), *words)
        drawn = picture.read_text()
        assert len(re.findall(r">layer \d, head \d</text>", drawn)) == count
        (caption,) = re.findall(r">([^<>]*A weight is[^<>]*)<", drawn)
        says("commands.attend.caption", caption.partition("A weight ")[2])
    assert "layer 1, mean of heads" in drawn


def test_a_page_opens_at_the_head_that_the_terminal_shows(offer, capsys, tmp_path):
    offer("multihead", "model.mixer.num_heads=2")
    page = tmp_path / "look.html"
    shown(capsys, SHORT, "-o", str(page))
    (opens,) = re.findall(r"<option[^>]* selected>([^<]*)<", page.read_text())
    assert title(shown(capsys, SHORT)).startswith(f"{opens}: ")


def test_a_map_of_another_sequence_says_what_reads_what(offer, capsys):
    _, text = offer("seq2seq lstm attention")
    out = shown(capsys, text)
    assert re.findall(READS, out) == [("the answer so far", "the text")]
    assert len(rows(out)) == 1


def test_a_token_that_stands_there_twice_is_said_to(offer, capsys):
    _, text = offer("multihead")
    out = shown(capsys, text, "--query", "the")
    assert "--query 0 " in out
    assert "--query 0 " not in shown(capsys, text, "--query", "0")


def test_of_a_long_text_the_tokens_around_the_query_are_shown(offer, capsys):
    run, _ = offer("multihead", "dataset=mqar")
    text = " ".join(run.dataset.tokens[at] for at in range(1, 61))
    out = shown(capsys, text, "--query", "40")
    assert max(map(cell_len, out.splitlines())) <= 80
    assert len(rows(out)) == 20
    assert out.count("20 of 60 ") == 1
    assert len(rows(shown(capsys, text, "--query", "40", "--map"))) == 60


@pytest.mark.parametrize("name", RUNS)
def test_every_run_can_be_written_in_every_form(offer, capsys, tmp_path, name):
    run, text = offer(name)
    captured, _ = run.capture(text)
    pages = {"html": b"<!"} if name in ("multihead", "seq2seq") else {}
    for ending, begin in {"npz": b"pk", "json": b"{", **pages}.items():
        path = tmp_path / f"map.{ending}"
        assert shown(capsys, text, "-o", str(path)).strip() == str(path)
        assert path.read_bytes().lower().startswith(begin)
    found = json.loads((tmp_path / "map.json").read_text())
    if name == "multihead":
        assert found == json.loads(shown(capsys, text, "--format", "json"))
    by_source = {one["source"]: one for one in found["maps"]}
    with np.load(tmp_path / "map.npz") as archive:
        assert {of for of in archive.files if f"{of}.tokens" in archive.files} == set(by_source)
        for source, one in by_source.items():
            assert np.allclose(archive[source], one["weights"])
            assert archive[f"{source}.queries"].tolist() == one["queries"]
            assert archive[f"{source}.tokens"].tolist() == one["keys"]
    numbers = {layer.source: layer.index for layer in run.model.attention_layers()}
    for layer, weights in captured.weights.items():
        assert np.allclose(by_source[layer.source]["weights"], weights)
        assert by_source[layer.source]["layer"] == numbers.get(layer.source)


def test_other_programs_get_the_look(offer, capsys, tmp_path):
    run, text = offer("multihead")
    captured, _ = run.capture(text)
    given = json.loads(shown(capsys, text, "--format", "bertviz"))
    for layer, weights in zip(given["attention"], captured.patterns.values(), strict=True):
        assert np.allclose(np.array(layer), weights[None])
    path = tmp_path / "views.json"
    shown(capsys, text, "--format", "circuitsvis", "-o", str(path))
    assert [np.shape(one["attention"]) for one in json.loads(path.read_text())] == [(4, 13, 13)] * 2


@pytest.mark.parametrize(
    ("words", "form", "sources"),
    [
        (["multihead"], "bertviz", ["influence"]),
        (
            ["multihead", "model/mixer=hybrid", BELOW],
            "circuitsvis",
            ["blocks.0.mixer.mixer.mixing", "influence"],
        ),
        (["seq2seq"], "circuitsvis", CROSS),
        (["seq2seq", "model/mixer=additive"], "bertviz", CROSS),
    ],
    ids=["influence", "mixing", "cross", "unequal_heads"],
)
def test_what_other_programs_cannot_show_is_said_beside_the_output(
    offer, capsys, tmp_path, request, words, form, sources, monkeypatch
):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    _, text = offer(*words)
    assert main(["attend", "untrained", text, "--format", form]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    says(f"commands.attend.left_out.{request.node.callspec.id}", printed.err)
    with_all = tmp_path / "map.npz"
    shown(capsys, text, "-o", str(with_all))
    with np.load(with_all) as archive:
        assert set(sources) <= set(archive.files)


def test_a_wrong_request_is_refused(offer, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offer("multihead")
    wrong = {
        "layer": [TEXT, "--layer", "2"],
        "head": [TEXT, "--layer", "0", "--head", "4"],
        "head_below_0": [TEXT, "--layer", "0", "--head", "-1"],
        "query": [TEXT, "--query", "cat"],
        "ending": [TEXT, "-o", "map.gif"],
        "two_forms": [TEXT, "-o", "map.png", "--format", "bertviz"],
        "directory": [TEXT, "-o", "nowhere/map.png"],
        "layer_of_all": [TEXT, "-o", "map.npz", "--layer", "0"],
        "map_and_json": [TEXT, "--map", "--format", "json"],
        "no_text": [],
    }
    requests = {name: ["attend", "untrained", *words] for name, words in wrong.items()}
    refusals(capsys, "commands.attend.{}", requests)
    _, text = offer("lstm")
    requests = {
        "no_map_of_layer": ["attend", "untrained", text, "--layer", "0"],
        "no_view": ["attend", "untrained", text, "--format", "bertviz"],
    }
    refusals(capsys, "commands.attend.{}", requests)
    assert list(tmp_path.iterdir()) == []


def test_without_a_run_it_is_said_how_to_get_one(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    requests = {
        "no_runs": ["attend", "pronoun", TEXT, "--runs-dir", str(tmp_path / "empty")],
        "no_directory": ["attend", "pronoun", TEXT, "--runs-dir", str(tmp_path / "nowhere")],
        "no_run_named": ["attend"],
    }
    refusals(capsys, "commands.attend.{}", requests, tmp_path)
