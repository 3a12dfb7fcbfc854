"""The page of heads has the numbers of `attnlab heads`, at every step, with heads matched first."""

import re
from pathlib import Path

import numpy as np
import pytest

from attnlab.analysis import head_arm
from attnlab.analysis.head_arm import ArmHeads, arm_heads, arms_with_heads
from attnlab.analysis.head_report import head_report
from attnlab.analysis.run_list import list_runs
from attnlab.analysis.select import drop_damaged
from attnlab.analysis.statistics import estimate, t_interval
from attnlab.run_record.bounds import SHARE
from attnlab.run_record.head_scores import load_head_scores
from attnlab.run_record.record import Record, find_runs
from tests.dashboard.recorded import STEPS, ask, recorded


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("heads") / "runs"
    for variant in ("multihead", "moe"):
        for seed in range(3):
            recorded(runs_dir, variant, seed)
    return runs_dir


def heads_of(runs_dir: Path, measure: str = "previous") -> ArmHeads:
    selection = drop_damaged(list_runs(find_runs(runs_dir)).where("variant=multihead").selection)
    arms, _ = arms_with_heads(selection)
    return arm_heads(*next(iter(arms.items())), selection, measure)


def test_the_last_step_has_the_numbers_that_the_command_prints(runs):
    heads = heads_of(runs)
    (group,) = heads.report.groups
    assert head_report([runs / run for run in heads.runs]).groups[0].reference == group.reference
    printed = [head.measures["previous"] for layer in group.layers for head in layer.heads]
    assert [head.history[STEPS[-1]] for head in heads.heads] == printed


def test_every_step_averages_the_heads_that_were_matched(runs):
    heads = heads_of(runs)
    scores = [
        next(iter(load_head_scores(Record(runs / run)).values()))["previous"] for run in heads.runs
    ]
    assert any(list(head.of) != [head.head] * 3 for head in heads.heads)
    for head in heads.heads:
        for place, step in enumerate(STEPS):
            values = [
                history.values[place, at] for history, at in zip(scores, head.of, strict=True)
            ]
            assert head.history[step] == t_interval(values)


def test_what_is_left_without_a_named_head_is_that_of_the_evidence(runs):
    heads = heads_of(runs)
    (named,) = heads.named
    assert named.without == {"head out": estimate([0.2, 0.21, 0.22], SHARE)}
    assert {run: str(head) for run, head in named.heads.items()} == dict(
        zip(heads.runs, ("L0H0", "L0H1", "L0H0"), strict=True)
    )
    assert heads.whole is not None
    assert heads.whole.mean == pytest.approx(np.mean([0.9, 0.91, 0.92]))


def test_since_when_is_told_for_the_run_that_measured_it(tmp_path):
    paths = [recorded(tmp_path, "multihead", seed, measures_evidence=seed > 0) for seed in range(3)]
    (named,) = heads_of(tmp_path).named
    assert named.since == {path.name: 0 for path in paths[1:]}
    rows = re.findall(r"<tr>.*?</tr>", ask(tmp_path).get("/heads").text, re.DOTALL)
    told = [row for row in rows if 'data-of="since"' in row]
    assert ["not measured" in row for row in told] == [True, False, False]


def test_the_page_shows_one_arm_and_every_head_leads_to_its_attention(runs):
    browser = ask(runs)
    page = browser.get("/heads?where=variant%3Dmultihead").text
    (reference,) = {group.reference for group in heads_of(runs).report.groups}
    for head in range(2):
        assert f'href="/attention?run={reference}&amp;layer=0&amp;head={head}"' in page
    moe = browser.get("/heads?arm=mqar-moe-1x64-s1").text
    assert "/attention?run=mqar-moe" in moe
    assert "/attention?run=mqar-multihead" not in moe
    assert '<option value="mqar-moe-1x64-s0" selected>' in moe


def test_one_run_is_shown_by_itself_with_its_roles(runs):
    page = ask(runs).get("/heads?run=mqar-multihead-1x64-s1").text
    (run,) = head_report(runs / "mqar-multihead-1x64-s1").runs
    for head in run.layers[0].heads:
        score = head.scores["previous"]
        assert score is not None
        assert f"<bdi>{score:.2f}".replace("0.", ".") in page
    assert "no interval: one run" in page


@pytest.fixture
def calls(monkeypatch) -> list[object]:
    """The arms whose heads were computed."""
    made, compute = [], head_arm.arm_heads
    monkeypatch.setattr(head_arm, "arm_heads", lambda *of: made.append(of) or compute(*of))
    return made


def test_heads_are_matched_again_only_where_a_run_changed(runs, calls):
    browser = ask(runs)
    first = browser.get("/heads").text
    assert browser.get("/heads").text == first
    assert len(calls) == 1
    browser.get("/heads?measure=sink")
    assert len(calls) == 2


def test_an_unfinished_run_is_never_kept(tmp_path, calls):
    path = recorded(tmp_path, "multihead")
    (path / "run.json").unlink()
    (path / "attempts/1/run.json").unlink()
    browser = ask(tmp_path)
    for _ in range(2):
        assert browser.get("/heads").status_code == 200
    assert len(calls) == 2
