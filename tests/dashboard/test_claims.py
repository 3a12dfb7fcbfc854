"""The page of claims has the verdicts of `attnlab reproduce`, and trains and writes nothing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab.dashboard import claims
from attnlab.reproduce.judged import judge_every_paper
from attnlab.reproduce.overview import judged_papers
from attnlab.reproduce.recipe import experiments_dir, load_recipes
from tests.dashboard.recorded import ask
from tests.fabricated import result, write

RECIPE = """\
seeds: 3
common: [dataset=mqar]
arms: {one: [variant=vanilla], two: [variant=multihead]}
metrics: [test/accuracy]
pictures: []
curves: []
"""
CLAIMS = """\
check:
  high:
    says: <b>both</b> are right
    theirs: 0.9
    source: ours
    arms: [one, two]
    measure: test/accuracy
    at_least: 0.5
"""


@pytest.fixture
def experiments(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "experiments" / "paper"
    folder.mkdir(parents=True)
    (folder / "check.yaml").write_text(RECIPE)
    (folder / "claims.yaml").write_text(CLAIMS.replace("theirs: 0.9", "theirs: '0.9'"))
    (folder / "about.md").write_text("# Paper\n")
    monkeypatch.setattr(claims, "experiments_dir", lambda: folder.parent)
    return folder.parent


THREADS = {"trainer.threads": 1}


def trained(runs_dir: Path, variant: str, seed: int, accuracy: float) -> None:
    overrides = ("dataset=mqar", f"variant={variant}", "trainer.threads=1")
    content = result(variant, 2, seed, accuracy, overrides=overrides, knobs=THREADS)
    write(runs_dir / "reproduce/paper-check", f"{variant}-{seed}", content)


def test_verdicts_are_those_of_the_command(tmp_path):
    answer = ask(tmp_path).get("/api/claims").json()
    printed = [claim for recipe in judge_every_paper(experiments_dir()) for claim in recipe.claims]
    assert [
        (c["paper"], c["claim"], c["verdict"], c["ours"], c["low"]) for c in answer["claims"]
    ] == [(c.paper, c.claim, c.verdict, c.ours, c.low) for c in printed]


def test_what_was_not_run_has_the_command_that_runs_it(tmp_path, experiments):
    page = ask(tmp_path).get("/claims").text
    assert "It is not run yet." in page
    assert page.count('data-of="verdict"') == 2
    assert "attnlab reproduce paper" in page
    assert "&lt;b&gt;both&lt;/b&gt; are right" in page


def test_runs_in_the_store_are_judged_before_results_are_written(tmp_path, experiments):
    for seed in range(3):
        trained(tmp_path, "vanilla", seed, 0.9)
        trained(tmp_path, "multihead", seed, 0.3)
    trained(tmp_path, "moe", 0, 0.9)
    before = sorted(tmp_path.rglob("*"))
    (paper,) = judged_papers(experiments, tmp_path)
    (recipe,) = paper.recipes
    assert recipe.is_partial
    assert [verdict.verdict for verdict in recipe.judged.verdicts] == ["holds", "fails"]
    assert [verdict.ours.mean for verdict in recipe.judged.verdicts] == pytest.approx([0.9, 0.3])
    page = ask(tmp_path).get("/claims").text
    assert re.search(r'class="tone-bad"><bdi>disputed', page)
    assert "whose results are not written yet" in page
    assert sorted(tmp_path.rglob("*")) == before


def test_too_few_seeds_are_not_run(tmp_path, experiments):
    trained(tmp_path, "vanilla", 0, 0.9)
    (paper,) = judged_papers(experiments, tmp_path)
    verdicts = paper.recipes[0].judged.verdicts
    assert [verdict.verdict for verdict in verdicts] == ["not_run", "not_run"]
    assert verdicts[0].ours.n == 1


def test_a_paper_that_cannot_be_read_is_said_and_leaves_the_others(tmp_path, experiments):
    shutil.copytree(experiments / "paper", experiments / "other")
    (experiments / "other/results").mkdir()
    (experiments / "other/results/check.json").write_text("{")
    shutil.copytree(experiments / "paper", experiments / "third")
    (experiments / "third/claims.yaml").write_text("check: 7")
    answer = ask(tmp_path).get("/claims")
    assert answer.status_code == 200
    assert "check.json is damaged" in answer.text
    assert "expected claims by name" in answer.text
    assert "paper: The check" in answer.text


def test_a_verdict_is_chosen(tmp_path, experiments):
    recipe = load_recipes(experiments, "paper")["check"]
    assert recipe.seeds == 3
    for seed in range(3):
        trained(tmp_path, "vanilla", seed, 0.9)
        trained(tmp_path, "multihead", seed, 0.3)
    shown = ask(tmp_path).get("/api/claims?verdict=fails").json()["claims"]
    assert [claim["claim"] for claim in shown] == ["high/two"]


def test_claims_experts_and_influence_are_answered_without_torch(tmp_path):
    script = """
import sys, json
from pathlib import Path
from starlette.testclient import TestClient
from attnlab.dashboard.app import build_app
from attnlab.dashboard.guard import Access
from attnlab.dashboard.run_store import RunStore
app = build_app(RunStore((), Path(sys.argv[1])), Access.on_loopback(8790))
browser = TestClient(app, base_url="http://127.0.0.1:8790")
codes = [browser.get(page).status_code for page in ("/claims", "/experts", "/influence")]
print(json.dumps([codes, "torch" in sys.modules]))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[200, 422, 422], False]
