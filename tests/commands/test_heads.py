"""`attnlab heads` shows the heads of a run, and those of several seeds once they are matched."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float

from attnlab.analysis.head_report import head_report
from attnlab.cli import main
from attnlab.figures import head_curves as figures
from attnlab.layers import AttentionLayer, Axes, HeadRef
from attnlab.run_record import head_scores as heads
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.evidence_history import evidence_rows
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.pattern_table import TABLE, Pattern, PatternWeights
from attnlab.run_record.record import Record
from tests.fabricated import result
from tests.printed import without_numbers
from tests.prose import says
from tests.refusals import refusals, refused

LAYERS = [AttentionLayer(at, f"blocks.{at}.mixer.attend", 4, Axes()) for at in range(2)]
PATHS = [layer.path for layer in LAYERS]
STEPS = (0, 100, 200)
DUPLICATE = ("duplicate", "token")


def measured(
    runs_dir: Path,
    seed: int = 0,
    variant: str = "multihead",
    *,
    order: Sequence[int] = (0, 1, 2, 3),
    evidence: Mapping[str, Any] | None = None,
    statistics: bool = True,
    finished: bool = True,
    patterns: bool = True,
    named: Mapping[int, Mapping[str, NamedHead]] | None = None,
    spread: float = 0.0,
    blur: float = 0.0,
    last: int = STEPS[-1],
    **fields,
) -> str:
    """Write a run whose heads look at one key each; `order` says which head is which.

    Head 3 looks about by as much as `blur` says; no patterns are kept after the step `last`.
    """
    content = result(variant, seed=seed, **fields)
    every = {"cadence": {"statistics_every": 100 if statistics else None}, "statistics": {}}
    content.identity["callbacks"] |= every  # pyright: ignore[reportIndexIssue]
    content.identity["evidence"] = evidence or {}  # pyright: ignore[reportIndexIssue]
    name = f"mqar-{variant}-2x64-s{seed}-{len(list(runs_dir.glob('*'))):03}"
    attempt = Attempt.claim(runs_dir / name, content.identity)
    tokens, at = list("abcde"), list(range(5))
    for step in STEPS:
        weights = np.tile(np.eye(5, dtype=np.float32)[:4, None], (1, 5, 1))
        weights[3] = (1 - blur) * weights[3] + blur / 5
        weights = weights[list(order)]
        for layer in LAYERS if variant != "lstm" else ():
            row = Pattern(step, "x", layer, tokens, at, 4, PatternWeights(weights)).to_row()
            if patterns and step <= last:
                attempt.append(TABLE, [row])
            scores = {
                "previous": [0.1 + step / 300, 0.2 + spread, 0.3 + spread, 0.6 + spread],
                "sink": [0.1, 0.2, float("nan"), 0.4],
                "normalised_entropy": [0.1, 0.99, 0.3, 0.4],
                "effective_keys": [1.0 + seed, 12.5, 100.0, 1234.5],
            }
            for measure, values in scores.items() if statistics else ():
                own = [values[head] for head in order]
                attempt.append(heads.TABLE, [heads.measure_row(step, layer, measure, own)])
        share = np.full((1, 1, 5), 0.2, dtype=np.float32)
        if patterns and step <= last:
            influence = Pattern(step, "x", None, tokens, [4], 4, PatternWeights(share))
            attempt.append(TABLE, [influence.to_row()])
    for step, named_heads in (named or {}).items():
        attempt.append("evidence", evidence_rows(step, "again", Finding({}, named_heads)))
    if finished:
        attempt.finish(content)
    attempt.close()
    return name


def scored(
    runs_dir: Path, measures: Mapping[str, tuple[Sequence[int], Float[np.ndarray, "step head"]]]
) -> str:
    """Write an unfinished run of one layer, of which only scores were kept."""
    attempt = Attempt.claim(runs_dir / "scored", {"seed": 0})
    for name, (steps, values) in measures.items():
        for step, row in zip(steps, values.tolist(), strict=True):
            attempt.append(heads.TABLE, [heads.measure_row(step, LAYERS[0], name, row)])
    attempt.close()
    return "scored"


def told(capsys, *words) -> tuple[int, str, str]:
    code = main(["heads", *map(str, words)])
    return code, *capsys.readouterr()


def test_a_run_shows_every_head_with_its_role_and_since_when(tmp_path, capsys):
    name = measured(tmp_path)
    code, out, err = told(capsys, name, "--runs-dir", tmp_path)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(f"{name}, step 200")
    rows = [line.split() for line in out.splitlines() if line.startswith("   ")]
    assert [row[0] for row in rows] == list("01230123")
    # No score was recorded of the current token, of duplicates, of prefixes and of distances.
    assert rows[0] == [
        *("0", ".77", "-", "-", "-", ".10", ".10", "1.0", "-"),
        "previous",
        "token",
        "200",
    ]
    assert rows[1][-2:] == ["broad", "0"]
    assert rows[2][1:6] == [".30", "-", "-", "-", "-"]
    assert rows[3][-3:] == ["previous", "token", "0"]
    says("commands.heads.printed", without_numbers(out), name)


def test_each_measure_stands_under_its_own_name_and_the_highest_role_is_shown(tmp_path, capsys):
    names = ("previous", "current", "duplicate_token", "prefix_matching", "sink")
    names += ("normalised_entropy", "effective_keys", "distance")
    values = [0.61, 0.12, 0.72, 0.14, 0.15, 0.16, 1.7, 1.8]
    scores = {name: ([4], np.array([[value]])) for name, value in zip(names, values, strict=True)}
    # A measure that an attempt before took last.
    scores["entropy"] = ([2], np.array([[1.0]]))
    name = scored(tmp_path, scores)
    out = told(capsys, name, "--runs-dir", tmp_path)[1]
    assert out.startswith(f"{name}, step 4")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("   ")]
    assert row == ["0", ".61", ".12", ".72", ".14", ".15", ".16", "1.7", "1.8", *DUPLICATE, "4"]


def test_json_has_every_measure_of_a_run(tmp_path, capsys):
    name = measured(tmp_path)
    words = (name, "--runs-dir", tmp_path, "--format", "json")
    whole = json.loads(told(capsys, *words)[1])
    assert set(whole) == {"schema", "runs", "groups", "left_out"}
    (run,) = whole["runs"]
    assert (run["run"], run["step"], whole["groups"]) == (name, 200, [])
    assert run["findings"] == {}
    assert [layer["name"] for layer in run["layers"]] == PATHS
    first, _, third, _ = run["layers"][1]["heads"]
    assert first["roles"] == [
        {
            "role": "previous token",
            "measure": "previous",
            "threshold": 0.5,
            "source": "Clark et al. 2019, sec. 3.1",
            "since": 200,
        }
    ]
    assert third["scores"] == {
        "previous": 0.3,
        "sink": None,
        "normalised_entropy": 0.3,
        "effective_keys": 100,
    }
    whole = json.loads(told(capsys, *words, "--measure", "previous")[1])
    course = whole["runs"][0]["layers"][0]["history"]
    assert course["steps"] == list(STEPS)
    assert course["values"][1] == pytest.approx([0.1 + 1 / 3, 0.2, 0.3, 0.6])


def test_the_heads_that_evidence_named_stand_in_a_table_of_their_own(tmp_path, capsys):
    found = {"read": 0.86, "read_layer": 1, "read_head": 2, "read_behind": 1, "previous": 0.25}
    found |= {"gather": 0.7, "gather_layer": 0, "gather_head": 3, "whole": 1}
    found |= {"without_read": 0.02, "without_read_mean": 0.14}
    found |= {"without_gather": 0.03, "without_gather_mean": 0.99}
    evidence = {"again": {"_target_": "attnlab.evidence.recall.RecallCircuit", "_partial_": True}}
    metrics = {f"again/{name}": float(value) for name, value in found.items()}
    name = measured(tmp_path, metrics=metrics, evidence=evidence)
    out = told(capsys, name, "--runs-dir", tmp_path)[1]
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines() if line.startswith("again")]
    left = ["head", "out", ".02,", "mean", "pattern", ".14"]
    assert rows[0] == ["again", "L1H2", "match", "and", "read", ".86", *left]
    assert rows[1][:4] == ["again", "L0H3", "gathers", ".70"]
    assert len(rows) == 2


def named_heads(order: Sequence[int]) -> dict[int, dict[str, NamedHead]]:
    """Give the head that evidence named after each step, by its number in layer 1."""
    without = {"head out": 0.02, "mean pattern": 0.14}
    return {
        step: {"read": NamedHead(HeadRef(1, head), "match and read", 0.5 + head / 10, without)}
        for step, head in zip(STEPS, order, strict=True)
    }


def test_a_run_says_since_when_the_head_that_evidence_names_does_its_work(tmp_path, capsys):
    named = named_heads((0, 2, 2))
    findings = {"again": Finding({}, named[200])}
    name = measured(tmp_path, named=named, findings=findings, metrics={"test/accuracy": 0.9})
    out = told(capsys, name, "--runs-dir", tmp_path)[1]
    assert max(map(len, out.splitlines())) <= 80
    (row,) = (line.split() for line in out.splitlines() if line.startswith("again"))
    assert row[:7] == ["again", "L1H2", "match", "and", "read", ".70", "100"]
    assert head_report(Record(tmp_path / name)).runs[0].since == {"again": {"read": 100}}


def test_runs_of_several_seeds_each_say_since_when(tmp_path, capsys):
    for seed, order in enumerate(((2, 2, 2), (0, 2, 2), (0, 1, 2))):
        measured(tmp_path, seed, named=named_heads(order))
    out = told(capsys, "--runs-dir", tmp_path)[1]
    assert "again names its head read since step 0, 100, 200 (n = 3)" in out
    (group,) = head_report([Record(path) for path in sorted(tmp_path.iterdir())]).groups
    assert group.since == {"again": {"read": [0, 100, 200]}}


def test_what_is_printed_as_json_is_the_report(tmp_path, capsys):
    names = [measured(tmp_path, seed) for seed in range(2)]
    alone = measured(tmp_path, 7, knobs={"optimizer.lr": 0.5})
    lstm = measured(tmp_path, 0, "lstm")
    printed = json.loads(told(capsys, "--runs-dir", tmp_path, "--format", "json")[1])
    records = [Record(tmp_path / name) for name in (*names, alone, lstm)]
    assert printed == head_report(records).to_json()
    words = (names[0], "--runs-dir", tmp_path, "--measure", "drift", "--format", "json")
    printed = json.loads(told(capsys, *words)[1])
    assert printed == head_report(records[:1], "drift").to_json()


def test_the_course_of_a_measure_has_a_row_for_each_step(tmp_path, capsys):
    name = measured(tmp_path)
    code, out, _ = told(capsys, name, "--runs-dir", tmp_path, "--measure", "previous")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip()[0].isdigit()]
    assert rows == 2 * [
        [str(step), f"{0.1 + step / 300:.3f}".lstrip("0"), ".200", ".300", ".600"] for step in STEPS
    ]


def test_the_course_of_drift_has_a_row_for_each_step_after_the_first(tmp_path, capsys):
    name = measured(tmp_path)
    code, out, _ = told(capsys, name, "--runs-dir", tmp_path, "--measure", "drift")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines() if line.strip()[0].isdigit()]
    assert rows == 2 * [[str(step), *(4 * [".000"])] for step in STEPS[1:]]


def test_of_many_heads_each_has_its_column_in_one_of_several_tables(tmp_path, capsys):
    values = np.arange(12) / 100 + np.array([[0.0], [0.5]])
    name = scored(tmp_path, {"sink": ([0, 8], values)})
    out = told(capsys, name, "--runs-dir", tmp_path, "--measure", "sink")[1]
    found = [line.split() for line in out.splitlines() if line.split()[0] in ("step", "0", "8")]
    expected = []
    for some in (range(10), range(10, 12)):
        expected.append(["step", *map(str, some)])
        for step, row in zip((0, 8), values, strict=True):
            expected.append([str(step), *(f"{row[head]:.3f}".lstrip("0") for head in some)])
    assert found == expected


def test_a_group_says_which_run_and_which_steps_its_numbers_are_of(tmp_path, capsys):
    names = [
        measured(tmp_path, seed, blur=blur, last=100) for seed, blur in enumerate((0.0, 0.2, 0.9))
    ]
    whole = json.loads(told(capsys, "--runs-dir", tmp_path, "--format", "json")[1])
    (group,) = whole["groups"]
    # The second run lies between the others.
    assert group["reference"] == names[1]
    assert (group["step"], group["measured"]) == (100, 200)
    for layer in group["layers"]:
        *still, blurred = (head["apart"] for head in layer["heads"])
        assert still == [0, 0, 0]
        assert layer["apart"] == pytest.approx(blurred / 4)
    out = told(capsys, "--runs-dir", tmp_path)[1]
    (printed,) = re.findall(r"patterns of step (\d+); measures of step (\d+)", out)
    assert printed == ("100", "200")
    assert names[1] in out


def test_heads_of_several_seeds_are_matched_before_they_are_averaged(tmp_path, capsys):
    orders = [(0, 1, 2, 3), (3, 0, 1, 2), (1, 0, 3, 2)]
    names = [measured(tmp_path, seed, order=order) for seed, order in enumerate(orders)]
    whole = json.loads(told(capsys, "--runs-dir", tmp_path, "--format", "json")[1])
    (group,) = whole["groups"]
    assert (group["runs"], group["seeds"], group["reference"]) == (names, [0, 1, 2], names[0])
    layer = group["layers"][1]
    assert (layer["apart"], layer["chance"]) == (0, pytest.approx(0.75))
    assert [head["of"] for head in layer["heads"]] == [
        [order.index(head) for order in orders] for head in range(4)
    ]
    assert layer["heads"][3]["measures"]["previous"] == {
        "n": 3,
        "mean": 0.6,
        "low": 0.6,
        "high": 0.6,
    }
    assert layer["heads"][0]["measures"]["effective_keys"]["mean"] == 2
    assert layer["heads"][2]["measures"]["sink"]["mean"] is None
    assert [[role["role"] for role in head["roles"]] for head in layer["heads"]] == [
        *(["previous token"], ["broad"], [], ["previous token"])
    ]
    code, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("± .00") > 2
    says("commands.heads.printed_group", " ".join(out.split()), *names)


def test_the_spread_of_two_seeds_stays_in_its_line(tmp_path, capsys):
    for seed in range(2):
        measured(tmp_path, seed, spread=0.3 * seed)
    code, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    # Student's t of one degree of freedom is 12.706, times half of the difference.
    assert out.count("± 1.91") == 6


def test_a_group_that_cannot_be_matched_is_left_out_if_there_is_another(tmp_path, capsys):
    lost = [measured(tmp_path, seed, patterns=seed == 0) for seed in range(2)]
    words = ["heads", "--runs-dir", str(tmp_path)]
    refused(capsys, "commands.heads.no_patterns", words, *lost, tmp_path)
    for seed in range(2):
        measured(tmp_path, seed, knobs={"optimizer.lr": 0.1})
    whole = json.loads(told(capsys, "--runs-dir", tmp_path, "--format", "json")[1])
    assert len(whole["groups"]) == 1
    assert [left["run"] for left in whole["left_out"]] == lost
    for left in whole["left_out"]:
        says("commands.heads.left_out", left["reason"], *lost, tmp_path)


def test_what_differs_in_more_than_the_seed_is_shown_apart(tmp_path, capsys):
    for seed in (0, 1):
        measured(tmp_path, seed)
        measured(tmp_path, seed, knobs={"optimizer.lr": 0.1})
    alone = measured(tmp_path, 7, knobs={"optimizer.lr": 0.5})
    lstm = measured(tmp_path, 0, "lstm")
    going = measured(tmp_path, 9, finished=False)
    whole = json.loads(told(capsys, "--runs-dir", tmp_path, "--format", "json")[1])
    assert [group["seeds"] for group in whole["groups"]] == [[0, 1], [0, 1]]
    assert "optimizer.lr=0.1" in whole["groups"][1]["label"]
    assert [run["run"] for run in whole["runs"]] == [alone]
    assert [left["run"] for left in whole["left_out"]] == [going, lstm]
    _, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert f"{lstm}: {whole['left_out'][1]['reason']}" in out
    says("commands.heads.left_out_lstm", whole["left_out"][1]["reason"])
    # By itself, a run that is not finished can be read.
    assert told(capsys, going, "--runs-dir", tmp_path)[0] == 0


def test_runs_without_measures_or_match_are_refused(tmp_path, capsys):
    wrong: dict[str, list[tuple[str, dict]]] = {
        "no_heads": [("lstm", {})],
        "no_measures": [("multihead", {"statistics": False})],
        "same_run": [("multihead", {}), ("multihead", {})],
        "other_data": [("multihead", {}), ("multihead", {"seed": 1, "data_hash": "x"})],
    }
    for at, (name, runs) in enumerate(wrong.items()):
        runs_dir = tmp_path / str(at)
        for variant, fields in runs:
            measured(runs_dir, **{"variant": variant, **fields})
        words = ["heads", "--runs-dir", str(runs_dir)]
        refused(capsys, f"commands.heads.{name}", words, tmp_path)


def test_wrong_options_are_refused(tmp_path, capsys):
    one, other = measured(tmp_path), measured(tmp_path, 1)
    wrong = {
        "measure": [one, "--measure", "prefix"],
        "measure_typo": [one, "--measure", "previos"],
        "measure_of_two": [one, other, "--measure", "sink"],
        "output_of_two": [one, other, "-o", str(tmp_path / "a.png")],
        "ending": [one, "-o", str(tmp_path / "a.gif")],
        "directory": [one, "-o", str(tmp_path / "no" / "a.png")],
        "output_and_json": [one, "-o", str(tmp_path / "a.png"), "--format", "json"],
    }
    at = ["--runs-dir", str(tmp_path)]
    requests = {name: ["heads", *words, *at] for name, words in wrong.items()}
    refusals(capsys, "commands.heads.{}", requests, tmp_path, one, other)
    assert not list(tmp_path.glob("a.*"))


def test_the_measure_that_is_named_is_drawn_or_those_that_name_heads(tmp_path, capsys, monkeypatch):
    name, drawn = measured(tmp_path / "runs"), []

    def spy(layers, measures, title, thresholds):
        drawn.append((list(layers), measures, thresholds))
        return figure(layers, measures, title, thresholds)

    figure = figures.draw_head_curves
    monkeypatch.setattr(figures, "draw_head_curves", spy)
    monkeypatch.setattr("attnlab.figures.base.render_chart", lambda *_: b"")
    words = (name, "--runs-dir", tmp_path / "runs", "-o", tmp_path / "a.svg")
    for more in ((), ("--measure", "effective_keys")):
        assert told(capsys, *words, *more)[0] == 0
    (layers, every, thresholds), (_, one, _) = drawn
    assert layers == ["layer 0", "layer 1"]
    assert every == ["previous", "sink", "normalised_entropy"]
    assert one == ["effective_keys"]
    assert (thresholds["previous"], thresholds["normalised_entropy"]) == (0.5, 0.9)


def test_measures_are_drawn_to_a_file(tmp_path, capsys):
    name = measured(tmp_path / "runs")
    begins = {"html": b"<!doctype", "pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<svg"}
    for ending, begin in begins.items():
        file = tmp_path / f"a.{ending}"
        words = (name, "--runs-dir", tmp_path / "runs", "--measure", "sink", "-o", file)
        assert told(capsys, *words) == (0, f"{file}\n", "")
        assert file.read_bytes().lower().startswith(begin.lower())
