"""`attnlab reproduce` trains, judges and writes; what it is told twice it does once."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from attnlab.analysis.report import to_plain
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.launch import run as launch_run
from attnlab.reproduce import recipe, recipe_runs, results
from attnlab.reproduce.judge import VERDICTS
from attnlab.reproduce.judged import judge_every_paper
from attnlab.run_record.record import find_runs
from tests.prose import says
from tests.refusals import UNBROKEN, refusals, refused
from tests.reproduce.recipes import accuracies, claim, folder, read
from tests.reproduce.recipes import results as fabricated

TINY = (
    "dataset=pronoun",
    "debug=tiny",
    "dataset.num_train=100",
    "dataset.num_validation=20",
    "dataset.num_test=20",
    "model.d_model=16",
    "evidence=none",
    "callbacks.statistics=null",
    "callbacks.vectors=null",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
)
ARMS = {"a": ["variant=vanilla", "depth=shallow"], "b": ["variant=lstm", "depth=shallow"]}
CLAIMS = {
    "sure": claim(arms=["a", "b"], at_least=0),
    "steps": claim("steps until validation.accuracy >= 0", exactly=2),
}
KEYS = ["paper", "claim", "scale", "verdict", "theirs", "ours", "n", "low", "high", "needed"]

FIGURES = {"figures/check-attention.svg", "figures/check-attention.png"}
MADE = {"results/check.json", "README.md", *FIGURES}


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny recipe; runs go beside it."""
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path / "runs"))
    return folder(tmp_path / "experiments", CLAIMS, ARMS, TINY)


def reproduce(place: Path, *words: str) -> int:
    return main(["reproduce", "tiny", "--experiments", str(place.parent), *words])


def tree(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


def test_a_recipe_is_trained_judged_and_written_and_the_second_time_only_judged(place, capsys):
    before = tree(place)
    assert reproduce(place, "-j", "1", "--format", "json") == 0
    out, err = capsys.readouterr()
    assert "[6/6] b seed 2" in err
    told = json.loads(out)
    assert [(o["claim"], o["verdict"], o["n"]) for o in told] == [
        ("sure/a", "holds", 3), ("sure/b", "holds", 3), ("steps/a", "holds", 3),
    ]  # fmt: skip
    assert tree(place) - before == MADE

    kept = results.read_results(place, "check")
    assert kept is not None
    runs_dir = place.parents[1] / "runs/reproduce/tiny-check"
    records = {record.name: record.result for record in find_runs(runs_dir)}
    assert len(records) == 6
    for arm, words in ARMS.items():
        of_arm = kept["arms"][arm]
        assert of_arm["overrides"] == [*TINY, *words]
        assert [r["seed"] for r in of_arm["runs"]] == [0, 1, 2]
        for measured in of_arm["runs"]:
            result = records[measured["name"]]
            assert result is not None
            assert result.variant == words[0].removeprefix("variant=")
            assert measured["metrics"] == result.metrics
            assert measured["tables"]["validation"]["step"] == [2, 4]
            assert list(measured["tables"]["validation"]) == ["step", "accuracy"]
    mean = sum(r["metrics"]["test/accuracy"] for r in kept["arms"]["a"]["runs"]) / 3
    assert told[0]["ours"] == pytest.approx(mean)

    written = {name: (place / name).read_bytes() for name in ("results/check.json", "README.md")}
    assert reproduce(place, "-j", "1") == 0
    assert capsys.readouterr().out.count("(finished before)") == 6
    assert {name: (place / name).read_bytes() for name in written} == written


@pytest.mark.slow
def test_an_interrupted_recipe_goes_on_and_writes_nothing_before_its_end(
    place, capsys, monkeypatch
):
    begun, before = [], tree(place)
    train = launch_run.run

    def interrupted(config, console, postpones, notes, cell):
        begun.append(config)
        if len(begun) == 3:
            raise Interrupted(1)
        return train(config, console, postpones, notes, cell)

    monkeypatch.setattr(launch_run, "run", interrupted)
    assert reproduce(place, "-j", "1") == 130
    says("reproduce.interrupted", capsys.readouterr().out.splitlines()[-1])
    assert (len(begun), tree(place)) == (3, before)
    monkeypatch.setattr(launch_run, "run", train)
    assert reproduce(place, "-j", "1") == 0
    assert capsys.readouterr().out.count("(finished before)") == 2


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_fails_its_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path / "runs"))
    hot = ["optimizer.lr=1e30", "optimizer.gradient_clip=null", "schedule=constant"]
    arms = {"a": ["variant=vanilla"], "hot": ["variant=vanilla", *hot]}
    claims = {"fine": claim(at_least=0), "hot": claim(arms=["hot"], at_least=0)}
    place = folder(tmp_path / "experiments", claims, arms, TINY)
    for _ in range(2):
        assert reproduce(place, "-j", "1", "--format", "json") == 1
        fine, hot = json.loads(capsys.readouterr().out)
        assert (fine["verdict"], hot["verdict"], hot["n"]) == ("holds", "fails", 0)
        assert re.findall(r"hot seed (\d)", hot["note"]) == ["0", "1", "2"]
        kept = results.read_results(place, "check")
        assert kept is not None
        assert [f["seed"] for f in kept["arms"]["hot"]["failed"]] == [0, 1, 2]
        assert all(f["error"].startswith("Diverged") for f in kept["arms"]["hot"]["failed"])
    (line,) = (s for s in (place / "README.md").read_text().splitlines() if "failed." in s)
    says("reproduce.readme_failed", line.rpartition(". ")[2])


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_measure_that_no_run_has_is_told_after_the_first_run_of_its_arm(
    place, capsys, jobs, monkeypatch
):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    claims = {"fine": claim(at_least=0), "odd": claim("test/acuracy", ["b"], at_least=0)}
    folder(place.parent, claims, ARMS, TINY)
    before = tree(place)
    assert reproduce(place, "-j", jobs) == 2
    out, err = capsys.readouterr()
    ended_runs = [line for line in out.splitlines() if "] b seed" in line and "starts" not in line]
    assert len(ended_runs) == 1
    (fault,) = (line.strip() for line in err.splitlines() if "check.odd" in line)
    says("reproduce.measure_of_no_run", re.sub(r"-s0-\w+", "-s0", fault))
    assert tree(place) == before
    records = find_runs(place.parents[1] / "runs/reproduce/tiny-check")
    # A run of another worker is stopped wherever it is, perhaps before it has begun, or while it is
    # being born, when it has no word to leave. None failed, and none seems to go on.
    assert {r.state for r in records if r.result is None} <= {"new", "killed", "interrupted"}
    assert len(records) == 2 or jobs == "2"


def test_a_recipe_that_needs_a_gpu_says_so_before_any_run(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder(place.parent, CLAIMS, ARMS, TINY, scale="paper", needs="gpu")
    assert len(recipe_runs.compose_runs(read(place.parent, "paper"), 1, tmp_path)) == 2
    before = tree(place.parents[1])
    words = ["reproduce", "tiny", "--experiments", str(place.parent), "--scale", "paper"]
    refused(capsys, "reproduce.no_gpu", words, place.parent)
    assert tree(place.parents[1]) == before
    at = ["--experiments", str(place.parent)]
    assert main(["reproduce", "--scale", "paper", "--format", "json", *at]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(o["scale"], o["verdict"]) for o in told] == [("paper", "not_run")] * 3


def test_where_data_lie_reaches_every_run(place, capsys, monkeypatch):
    begun = []

    def begin(config, console, postpones, notes, cell):
        begun.append(config.values["dataset"]["seed"])
        return recipe_runs.Outcome(place, "held", note="it is held")

    # No dataset here has a path.
    monkeypatch.setattr("attnlab.reproduce.paper.PLACES", ("dataset.seed",))
    monkeypatch.setattr(launch_run, "run", begin)
    assert reproduce(place, "-j", "1", "dataset.seed=7") == 2
    says("reproduce.not_done", capsys.readouterr().err.splitlines()[-1])
    # What is held is asked again at the end.
    assert begun == [7] * 12


def test_judging_alone_judges_every_scale_unless_one_is_named(place, capsys):
    folder(place.parent, {"high": claim(at_least=0.99)}, ARMS, TINY)
    folder(place.parent, {"low": claim(at_least=0.1)}, ARMS, TINY, scale="arms", title="Arms")
    folder(place.parent, CLAIMS, ARMS, TINY, scale="paper")
    for scale in ("check", "arms"):
        kept = fabricated(read(place.parent, scale), {"a": accuracies(0.5, 0.6, 0.7)})
        results.write_results(place, kept)

    def judged(*words):
        code = reproduce(place, "--judge", "--format", "json", *words)
        told = json.loads(capsys.readouterr().out)
        return code, list(dict.fromkeys((o["scale"], o["verdict"]) for o in told))

    every = [("check", "fails"), ("paper", "not_run"), ("arms", "holds")]
    assert judged() == (1, every)
    assert judged("--scale", "arms") == (0, every[2:])
    assert judged("--scale", "paper") == (0, every[1:2])
    heads = [line for line in (place / "README.md").read_text().splitlines() if line[:3] == "## "]
    assert heads == ["## The check: on a CPU", "## The paper's scale: on a GPU", "## Arms"]


def test_data_that_cannot_be_had_are_no_failed_claim(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)

    def no_data(config, console, postpones, notes, cell):
        raise RequestError("there is no file")

    monkeypatch.setattr(launch_run, "run", no_data)
    before = tree(place)
    assert reproduce(place, "-j", "1") == 2
    out, err = capsys.readouterr()
    says("reproduce.no_data", err.splitlines()[-1])
    assert out.count("blocked") == 1
    assert tree(place) == before


@pytest.mark.slow
def test_other_seeds_than_those_committed_need_another_place(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    before = tree(place)
    assert reproduce(place, "--seeds", "1") == 2
    says("reproduce.other_seeds", capsys.readouterr().err, place)
    other = place.parents[1] / "other"
    assert reproduce(place, "-j", "1", "--seeds", "1", "-o", str(other), "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {(o["verdict"], o["n"], o["needed"]) for o in told} == {("not_run", 1, 3)}
    assert tree(place) == before
    assert tree(other) == MADE
    assert "| 0 (1 of 3) |" in (other / "README.md").read_text()


def test_judging_again_needs_no_training_and_no_torch(place):
    kept = fabricated(read(place.parent), {a: accuracies(0.5, 0.6, 0.7) for a in "ab"})
    for of_arm in kept["arms"].values():
        for measured in of_arm["runs"]:
            measured["tables"] = {"validation": {"step": [2], "accuracy": [0.5]}}
    results.write_results(place, kept)
    script = (
        "import sys; from attnlab.cli import main; "
        f"at = ['--experiments', {str(place.parent)!r}]; "
        "code = main(['reproduce', 'tiny', '--judge', *at]) or main(['reproduce', *at]); "
        "sys.exit(code or ' '.join({'torch', 'hydra', 'pyarrow'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("scale check: 3 holds\n") == 2
    assert max(map(len, done.stdout.replace(str(place), "").splitlines())) <= 80
    assert not (place.parents[1] / "runs").exists()


def test_a_claim_that_fails_is_exit_code_1_but_listing_it_is_none(place, capsys):
    folder(place.parent, {"high": claim(at_least=0.99)}, ARMS, TINY)
    results.write_results(place, fabricated(read(place.parent), {"a": accuracies(0.5, 0.6, 0.7)}))
    assert reproduce(place, "--judge", "--format", "json") == 1
    (judged,) = json.loads(capsys.readouterr().out)
    assert list(judged) == [*KEYS, "tolerance", "note", "seeds", "commits", "hardware"]
    assert judged | {"low": 0, "high": 0} == {
        "paper": "tiny", "claim": "high/a", "scale": "check", "verdict": "fails",
        "theirs": "they say", "ours": pytest.approx(0.6), "n": 3, "low": 0, "high": 0,
        "needed": 3, "tolerance": ">= .99", "note": "",
        "seeds": [0, 1, 2], "commits": ["0123456789"], "hardware": ["x86_64 cpu, 1 thread"],
    }  # fmt: skip
    assert main(["reproduce", "--experiments", str(place.parent), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [judged]
    (recipe_in_python,) = judge_every_paper(place.parent)
    assert to_plain(recipe_in_python.claims) == [judged]


def test_without_a_name_every_claim_in_the_tree_is_listed_in_80_columns(capsys):
    assert main(["reproduce"]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    assert table.isascii()
    assert main(["reproduce", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {o["paper"] for o in told} == set(recipe.paper_names(recipe.experiments_dir()))
    assert all(o["claim"] in table for o in told)
    overview = [line.split() for line in table.splitlines()[-1 - len(told) :]]
    overview = overview[overview.index(["paper", "scale", *VERDICTS, "date", "commit"]) + 1 :]
    of_scale = Counter((o["paper"], o["scale"], o["verdict"]) for o in told)
    assert {
        (p, s, v): int(n) for p, s, *ns in overview for v, n in zip(VERDICTS, ns, strict=False)
    } == {(p, s, v): of_scale[p, s, v] for p, s, *_ in overview for v in VERDICTS}
    assert {(p, s) for p, s, *_ in overview} == {(o["paper"], o["scale"]) for o in told}
    assert {o["verdict"] for o in told} <= {"holds", "fails", "not_run"}


WRONG = {
    "paper": ["tinny"],
    "scale": ["tiny", "--scale", "paper"],
    "seeds": ["tiny", "--seeds", "0"],
    "jobs": ["tiny", "--jobs", "0"],
    "judge_and_seeds": ["tiny", "--judge", "--seeds", "3"],
    "judge_of_no_paper": ["--judge"],
    "scale_of_no_paper": ["--scale", "chek"],
    "place_of_no_paper": ["dataset.path=x"],
    "two_papers": ["tiny", "other"],
    "override": ["tiny", "optimizer.lr=1"],
    "place": ["tiny", "dataset.path=x"],
    "judge_and_place": ["tiny", "--judge", "dataset.path=x"],
    "judge_and_parts": ["tiny", "--judge", "--config-dir", "mine"],
    "parts_of_no_paper": ["--config-dir", "mine"],
    "parts_nowhere": ["tiny", "--config-dir", "nowhere"],
}


def test_a_wrong_request_is_refused_and_writes_nothing(place, capsys):
    before, at = tree(place.parents[1]), ["--experiments", str(place.parent)]
    requests = {name: ["reproduce", *at, *words] for name, words in WRONG.items()}
    refusals(capsys, "reproduce.request.{}", requests, place.parent)
    assert tree(place.parents[1]) == before


def test_a_recipe_without_a_text_is_told_before_anything_is_trained(place, capsys):
    (place / "about.md").unlink()
    refused(capsys, "reproduce.no_text", ["reproduce", "tiny", "--experiments", str(place.parent)])


def test_a_faulty_arm_stops_all_before_anything_is_written(place, capsys):
    folder(place.parent, CLAIMS, {**ARMS, "c": ["model.num_haeds=2"]}, TINY)
    before = tree(place.parents[1])
    words = ["reproduce", "tiny", "--experiments", str(place.parent)]
    refused(capsys, "reproduce.faulty_arm", words)
    assert tree(place.parents[1]) == before


def test_damaged_results_are_refused(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    (place / "results").mkdir()
    words = ["reproduce", "tiny", "--experiments", str(place.parent), "--judge"]
    results.results_path(place, "check").write_text('{"schema": 9}')
    refused(capsys, "reproduce.results.newer", words, place)
    results.results_path(place, "check").write_text("{")
    assert main(words) == 2
    # What follows is the JSON library's.
    says("reproduce.results.damaged", capsys.readouterr().err.partition(" (")[0], place)


def test_an_installed_recipe_is_not_written_into(place, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("attnlab.reproduce.paper.shipped_dir", lambda: place.parent)
    monkeypatch.chdir(tmp_path)
    before = tree(place)
    assert reproduce(place, "--judge") == 0
    assert tree(place) == before
    assert tree(tmp_path / "experiments-results") == {"tiny/README.md"}
