"""`attnlab report` writes one file that says what `attnlab compare` says."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlab.analysis.compare import compare
from attnlab.analysis.select import select_runs
from attnlab.cli import main
from attnlab.dataset.pronoun import Pronoun
from attnlab.layers import Axes, HeadRef, Layer, MixingLayer
from attnlab.report import page as report_page
from attnlab.report.arm_cards import arm_cards, draw_cards
from attnlab.report.probe_history import MOST_TOKENS, probe_histories
from attnlab.run_record.pattern_table import Pattern, PatternWeights, load_patterns
from attnlab.run_record.record import Record
from tests.fabricated import failed, result, write
from tests.pictured import TWINS, attention, pictured
from tests.prose import says
from tests.refusals import refusals


class Text(HTMLParser):
    """The cells of the tables, the terms of the lists, and all text outside of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.terms: list[tuple[str, str]] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "input", "br"):
            self.inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "dt":
            self.terms.append(("", ""))

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text += data
        if {"th", "td"} & set(self.inside):
            self.rows[-1][-1] += data
        if "dt" in self.inside or "dd" in self.inside:
            term, value = self.terms[-1]
            at_term = "dt" in self.inside
            self.terms[-1] = (term + data, value) if at_term else (term, value + data)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """Transformers and an LSTM with three seeds each, and a run that failed."""
    path = tmp_path_factory.mktemp("report") / "runs"
    for place, variant in enumerate(("multihead", "lstm")):
        for seed in range(3):
            started = f"2026-11-23T00:00:{place}{seed}Z"
            pictured(path, variant, 2, seed, steps=(0, 500), started=started)
    attempt = path / "broken" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (path / "broken" / "config.yaml").write_text("seed: 0\n")
    claim = {
        "schema": 1,
        "host": "h",
        "pid": 1,
        "process_start": 0.0,
        "at": "",
        "resumed_from": None,
    }
    (attempt / "claim.json").write_text(json.dumps(claim))
    (attempt / "run.json").write_text(json.dumps(failed().to_json()))
    return path


@pytest.fixture(scope="module")
def report(runs_dir) -> str:
    output = runs_dir.parent / "report.html"
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(output)]) == 0
    return output.read_text("utf-8")


def words(text: str) -> str:
    return " ".join(text.split())


def notes(page: str) -> str:
    """Return what the page says beside its pictures, in small print."""
    return " / ".join(words(unescape(s)) for s in re.findall(r'<p class="note">(.*?)</p>', page))


def test_the_table_is_that_of_compare(report, runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", "--runs-dir", str(runs_dir)]) == 0
    title, *table, legend, _, left_out = capsys.readouterr().out.splitlines()
    shown = Text(report)
    assert [[words(cell) for cell in row if cell] for row in shown.rows] == [
        re.split(r"  +", line.strip()) for line in table
    ]
    assert len(shown.rows) == 3
    # The page begins a sentence with a capital letter.
    for line in (title, legend, left_out.removeprefix("left")):
        assert words(line) in words(shown.text)


def test_a_card_says_what_its_runs_have_measured_and_why_a_number_is_missing(report, runs_dir):
    results = {path.name: Record(path).result for path in runs_dir.glob("pronoun-*")}
    (panel,) = compare({name: result for name, result in results.items() if result})
    terms = [(words(term), words(value)) for term, value in Text(report).terms]
    flips = [value for term, value in terms if term == "flip rate, from it"]
    mean = np.mean([r.metrics["pronoun/flip"] for n, r in results.items() if r and "multi" in n])
    assert float(flips[0].split()[0]) == pytest.approx(mean, abs=0.05)
    says("commands.report.no_flip", flips[1])
    for group, said in zip(
        panel.groups, [v for t, v in terms if t == "test accuracy"], strict=True
    ):
        assert float(said.split()[0]) == pytest.approx(
            group.over_seeds("test/accuracy").mean, abs=0.005
        )
    says("commands.report.notes", notes(report))


def test_the_page_names_no_other_place(report):
    markup = unescape(re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", report, flags=re.DOTALL))
    assert not re.search(r"\b(src|href|action)=", markup)
    assert "http" not in markup.replace("http-equiv", "")
    assert "default-src 'none'" in markup
    assert "unsafe-eval" not in markup


def test_the_path_is_the_last_line_and_nothing_else_is_left(
    runs_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(report_page, "report_page", lambda *_: "new")
    output = tmp_path / "r.html"
    output.write_text("old")
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(output)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    assert output.read_text() == "new"
    assert list(tmp_path.iterdir()) == [output]


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    runs_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(report_page, "report_page", lambda *_: "\ud800")
    output = tmp_path / "r.html"
    output.write_text("old")
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(output)]) == 1
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_a_wrong_request_is_refused_and_writes_nothing(runs_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    at = ["report", "--runs-dir", str(runs_dir)]
    requests = {
        "output_directory": [*at, "-o", str(tmp_path / "none/r.html")],
        "output_is_directory": [*at, "-o", str(tmp_path)],
        "no_runs": ["report", "--runs-dir", str(tmp_path / "empty")],
        "no_directory": ["report", "--runs-dir", str(tmp_path / "none")],
        "none_finished": [*at, "broken"],
        "by": [*at, "--by", "nothing"],
    }
    refusals(capsys, "commands.report.{}", requests, tmp_path, runs_dir)
    assert not list(tmp_path.glob("**/*.html"))


def test_runs_without_patterns_still_have_their_table(tmp_path):
    for seed in range(3):
        write(tmp_path, f"a-{seed}", result(seed=seed, accuracy=0.5 + seed / 10))
    output = tmp_path / "r.html"
    assert main(["report", "--runs-dir", str(tmp_path), "-o", str(output)]) == 0
    shown = Text(output.read_text("utf-8"))
    assert words(shown.rows[1][2]) == ".60 [.35, .81]"
    assert "Where it looks" not in shown.text


def test_the_nouns_of_a_sentence_have_their_roles():
    tired, wide = (Pronoun.token_roles(tokens) for tokens in TWINS.values())
    assert tired[1] == wide[6] == "the noun that is meant"
    assert tired[6] == wide[1] == "the other noun"
    assert tired[0] == wide[0] == ""


MIXING = MixingLayer(0, "blocks.0.mixer", "blocks.0.mixer.mixing", 1, Axes(), is_linear=True)


def pattern(
    step: int, layer: Layer | None, size: int, heads: int = 1, answer_position: int | None = None
) -> Pattern:
    random = np.random.default_rng([step, size])
    at = size - 1 if answer_position is None else answer_position
    queries = [at] if layer is None else list(range(size))
    weights = random.dirichlet(np.ones(size), (heads, len(queries))).astype(np.float32)
    tokens = [f"t{n}" for n in range(size)]
    return Pattern(step, "p", layer, tokens, queries, at, PatternWeights(weights))


def test_a_long_sequence_is_shown_up_to_the_token_that_is_asked():
    whole = pattern(3, MIXING, 200, answer_position=149)
    (history,) = probe_histories([whole, pattern(3, None, 200, answer_position=149)])
    ends = history.tokens[0], history.tokens[-1]
    assert (*ends, len(history.tokens)) == ("t86", "t149", MOST_TOKENS)
    assert history.cut == 136
    assert history.answer_position == 63
    assert history.weights(0, 63) == pytest.approx(whole.weights[0, 149, 86:150], abs=0.004)
    assert history.heads == [(0, 0), (1, 0)]


def test_a_history_has_the_steps_that_all_its_maps_have():
    mixing = [pattern(step, MIXING, 5) for step in (0, 1, 2)]
    (history,) = probe_histories([*mixing, *(pattern(step, None, 5) for step in (0, 2))])
    assert history.steps == [0, 2]


def test_the_bytes_of_the_record_are_those_of_the_page(tmp_path):
    record = Record(pictured(tmp_path))
    patterns = load_patterns(record, probe="tired")
    (history,) = probe_histories(patterns)
    for shown in history.maps:
        of_layer = [p.codes for p in patterns if p.layer == shown.layer]
        assert np.array_equal(shown.codes, np.stack(of_layer))


def test_a_card_opens_with_the_chosen_head_or_the_last_layers_first():
    layers = [pattern(0, attention(layer, 2), 5, heads=2) for layer in (0, 1)]
    (history,) = probe_histories([*layers, pattern(0, None, 5)])
    assert history.index_of_head(HeadRef(0, 1)) == 1
    assert history.first_head_of_last_layer == 2
    (bare,) = probe_histories([pattern(0, None, 5)])
    assert bare.first_head_of_last_layer == 0


def test_the_figure_for_print_shows_the_chosen_head_after_the_last_step(runs_dir):
    records = {path.name: Record(path) for path in runs_dir.glob("pronoun-multihead*")}
    (panel,) = compare({name: r.result for name, r in records.items() if r.result})
    (card,) = arm_cards(panel, records)
    spec = draw_cards([card]).to_dict()
    shown = records[card.seed_views[0].run]
    assert shown.result is not None
    chosen = shown.result.findings["pronoun"].heads["it"].head
    for picture, probe in zip(spec["concat"][0]["hconcat"], TWINS, strict=True):
        values = picture["layer"][0].get("data", picture.get("data"))["values"]
        expected = load_patterns(shown, 500, probe)[chosen.layer].weights[chosen.head, 8]
        assert [row["weight"] for row in values] == pytest.approx(expected, abs=1e-5)
    assert any("… with it → meant cut" in line for line in spec["concat"][0]["title"]["subtitle"])


def test_a_page_that_would_be_too_large_carries_one_seed_and_says_so(runs_dir, monkeypatch):
    records = {path.name: Record(path) for path in runs_dir.glob("pronoun-multihead*")}
    panels = compare({name: r.result for name, r in records.items() if r.result})
    monkeypatch.setattr(report_page, "MOST_BYTES", 1000)
    text = report_page.report_page(panels, records)
    says("commands.report.notes_on_one_seed", notes(text))
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert [len(card["seeds"]) for card in data["sections"][0]["cards"]] == [1]


def test_one_text_has_a_page_of_its_own_without_a_step_slider():
    made = [pattern(7, attention(0, 2), 5, heads=2), pattern(7, None, 5)]
    text = report_page.attend_page(made, "answers <b>animal</b>", "run <1>")
    assert "answers &lt;b&gt;animal" in text
    assert '<input type="range"' not in text
    assert "layer 0, head 1" in text
    assert "edge is cut" not in text


def test_a_page_of_one_text_opens_at_the_head_that_is_named():
    made = [pattern(7, attention(layer, 2), 5, heads=2) for layer in (0, 1)]
    for opens, head in (
        (None, "layer 1, head 0"),
        ((attention(0, 2), 1), "layer 0, head 1"),
        ((attention(5, 2), 1), "layer 1, head 0"),
    ):
        text = report_page.attend_page([*made, pattern(7, None, 5)], "", opening_head=opens)
        assert re.findall(r"<option[^>]* selected>([^<]*)<", text) == [head]


def test_a_page_without_a_knock_out_says_that_its_pictures_support_no_claim(tmp_path):
    sentences = {"validation-0": ["k1", "v1", "k1"]}
    for seed in range(2):
        pictured(tmp_path / "runs", seed=seed, dataset="mqar", sentences=sentences, steps=(0,))
    output = tmp_path / "r.html"
    assert main(["report", "--runs-dir", str(tmp_path / "runs"), "-o", str(output)]) == 0
    shown = Text(output.read_text("utf-8"))
    says("commands.report.notes_without_knock_out", notes(output.read_text("utf-8")))
    assert "the noun that is meant" not in shown.text
    assert [term for term, _ in shown.terms][-2:] == ["test accuracy", "test loss"]


def card_of(runs_dir: Path, **options: Any) -> Any:
    selection = select_runs([], runs_dir)
    (panel,) = compare(selection.results, **options)
    return panel, arm_cards(panel, selection.records)[0]


def test_a_causal_arm_opens_at_the_head_of_the_token_that_answers(tmp_path):
    numbers = {"pronoun/right": 0.5, "pronoun/cut_right": 0.4}
    numbers |= {"pronoun/end_right": 0.5, "pronoun/end_cut_right": 0.4}
    heads = {"pronoun/layer": 0.0, "pronoun/head": 1.0, **numbers}
    ends = {"pronoun/end_layer": 1.0, "pronoun/end_head": 2.0}
    pictured(tmp_path, metrics={"test/accuracy": 0.9, **heads, **ends})
    (view,) = card_of(tmp_path)[1].seed_views
    assert view.histories[0].head_name(view.head_index) == "layer 1, head 2"


def test_a_card_of_recall_opens_at_the_head_that_reads_and_says_what_is_right_without(tmp_path):
    values = {"read": 0.8, "read_layer": 1.0, "read_head": 3.0, "without_read": 0.02}
    values |= {"without_read_mean": 0.13, "gather": 0.7, "whole": 1.0}
    values |= {"gather_layer": 0.0, "gather_head": 1.0}
    values |= {"without_gather": 0.3, "without_gather_mean": 0.4}
    metrics = {"test/accuracy": 0.9, **{f"recall/{name}": v for name, v in values.items()}}
    pictured(tmp_path, dataset="mqar", metrics=metrics, sentences={"validation-0": ["k1", "v1"]})
    panel, card = card_of(tmp_path)
    (view,) = card.seed_views
    assert view.histories[0].head_name(view.head_index) == "layer 1, head 3"
    assert [(m.name, m.value.text) for m in card.measures] == [
        ("test accuracy", ".9000"),
        ("weight asked → place that is read", ".8000"),
        ("… without that head", ".0200"),
        ("… with its mean pattern", ".1300"),
        ("weight from there → key, answer", ".7000"),
        ("… without that head", ".3000"),
        ("… with its mean pattern", ".4000"),
    ]
    text = report_page.report_page([panel], select_runs([], tmp_path).records)
    says("commands.report.notes_on_recall", notes(text))


def test_a_mixing_matrix_is_never_the_head_that_was_chosen():
    made = [pattern(0, MIXING, 5), pattern(0, attention(0, 1), 5)]
    (history,) = probe_histories([*made, pattern(0, None, 5)])
    assert history.head_name(history.index_of_head(HeadRef(0, 0)) or 0) == "layer 0, head 0"


def test_what_reads_another_sequence_is_not_shown_and_that_is_said(tmp_path):
    one = pictured(tmp_path, sentences={"x": ["a", "b"]}, steps=(0,))
    records = {one.name: Record(one)}
    made = load_patterns(records[one.name], probe="x")
    across = [
        replace(p, query_tokens=["c"], query_at=[0], data=PatternWeights(p.weights[:, :1]))
        for p in made[:1]
    ]
    (history,) = probe_histories([*made, *across])
    assert history.hides_cross_attention
    assert [shown.layer for shown in history.maps] == [pattern.layer for pattern in made]
    assert not probe_histories(made)[0].hides_cross_attention
    panel, card = card_of(tmp_path)
    view = replace(card.seed_views[0], histories=[history])
    others = report_page._card_remarks(panel, [card])
    (remark,) = (
        s
        for s in report_page._card_remarks(panel, [replace(card, seed_views=[view])])
        if s not in others
    )
    says("commands.report.across", remark)


def test_a_card_shows_the_median_seed_of_the_weight_that_is_drawn_and_says_its_value(tmp_path):
    weights = {0: 0.9, 1: 0.1, 2: 0.4, 3: 0.6}
    for seed, weight in weights.items():
        head = {"layer": 1.0, "head": 2.0, "right": weight, "cut_right": 0.4}
        numbers = {f"pronoun/{name}": value for name, value in head.items()}
        pictured(tmp_path, seed=seed, metrics={"test/accuracy": 0.9 + seed / 100, **numbers})
    _, card = card_of(tmp_path)
    # Of four, the worse of the middle two; by accuracy it would be seed 1.
    assert [view.seed for view in card.seed_views] == [2, 0, 1, 3]
    assert [view.whose for view in card.seed_views][:2] == [
        "seed 2, the median: weight .400",
        "seed 0: weight .900",
    ]
    drawn = draw_cards([card]).to_json()
    assert "seed 2, the median: weight .400" in drawn


@pytest.mark.parametrize(("higher_is_better", "median"), [(True, 0), (False, 3)])
def test_without_a_chosen_head_the_median_is_that_of_the_main_metric(
    tmp_path, higher_is_better, median
):
    for seed, accuracy in enumerate((0.6, 0.9, 0.5, 0.8)):
        metrics = {"test/accuracy": accuracy}
        lower_is_better = () if higher_is_better else ("accuracy",)
        pictured(tmp_path, seed=seed, metrics=metrics, lower_is_better=lower_is_better)
    _, card = card_of(tmp_path)
    assert card.seed_views[0].seed == median
    assert card.seed_views[0].whose.startswith(f"seed {median}, the median: test accuracy .")


def test_of_the_load_of_experts_a_card_has_the_extremes_of_each_seed(tmp_path):
    loads = ((0.7, 0.2, 0.1), (0.1, 0.6, 0.3), (0.2, 0.3, 0.5))
    for seed, load in enumerate(loads):
        gauges = {f"test/blocks.0.ffn.load.{n}": share for n, share in enumerate(load)}
        gauges["test/blocks.0.ffn.drops"] = 0.0
        pictured(tmp_path, "moe", seed=seed, metrics={"test/accuracy": 0.9, **gauges})
    _, card = card_of(tmp_path)
    assert [(m.name, m.value.text) for m in card.measures if "ffn" in m.name] == [
        ("test blocks.0.ffn.drops", "0"),
        ("test blocks.0.ffn.load, largest of 3", ".60"),
        ("test blocks.0.ffn.load, smallest of 3", ".13"),
    ]


def test_a_seed_that_saw_other_sentences_has_no_picture_and_that_is_said(tmp_path):
    pictured(tmp_path, seed=0)
    pictured(tmp_path, seed=1, sentences={"tired": ["another", "sentence"]})
    panel, card = card_of(tmp_path)
    assert [view.seed for view in card.seed_views] == [0]
    assert card.n == 2
    selection = select_runs([], tmp_path)
    says(
        "commands.report.notes_on_other_sentences",
        notes(report_page.report_page([panel], selection.records)),
    )
