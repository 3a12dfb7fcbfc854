"""`attnlab runs` lists, shows, labels and deletes what the record has, and nothing else."""

import json
import re
from itertools import product
from pathlib import Path

import pytest

import attnlab
from attnlab.analysis.find import find_records
from attnlab.cli import main
from attnlab.run_record.annotations import annotate
from attnlab.run_record.write import DELETED
from tests.fabricated import result, write
from tests.refusals import UNBROKEN, refusals


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """2 variants x 2 rates x 2 seeds, the first four of them of the sweep `rates`."""
    cells = product(("vanilla", "moe"), (0.001, 0.01), (0, 1))
    for place, (variant, rate, seed) in enumerate(cells):
        content = result(variant, 1, seed, accuracy=0.5 + place / 100, knobs={"optimizer.lr": rate})
        name = f"mqar-{variant}-1x64-lr{rate:g}-s{seed}-{place:010x}"
        write(tmp_path / "runs", name, content)
        if place < 4:
            annotate(tmp_path / "runs" / name, "sweep", "rates")
    return tmp_path / "runs"


def printed(capsys, *words) -> str:
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def listed(capsys, runs_dir, *words) -> list[str]:
    text = printed(capsys, "runs", *words, f"runs_dir={runs_dir}", "--format", "json")
    return [run["run"] for run in json.loads(text)["runs"]]


def names(runs_dir: Path) -> set[str]:
    return {path.name for path in runs_dir.iterdir()}


def test_the_list_has_every_run_with_what_distinguishes_it(runs_dir, capsys):
    report = json.loads(printed(capsys, "runs", "--runs-dir", runs_dir, "--format", "json"))
    rows = {row["run"]: row for row in report["runs"]}
    assert set(rows) == names(runs_dir)
    row = rows[f"mqar-moe-1x64-lr0.01-s1-{7:010x}"]
    assert row["keys"] == {"variant": "moe", "optimizer.lr": 0.01}
    assert (row["state"], row["metric"]) == ("finished", "test/accuracy")
    assert row["value"] == pytest.approx(0.57)
    files = [p for p in (runs_dir / row["run"]).rglob("*") if p.is_file()]
    assert row["size"] == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_fits_the_terminal_and_names_every_run(runs_dir, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = printed(capsys, "runs", "--runs-dir", runs_dir)
    assert max(map(len, text.splitlines())) <= width
    joined = re.sub(r"\s", "", "".join(line[: max(28, width - 40)] for line in text.splitlines()))
    for name in names(runs_dir):
        # Where the hashes have no room, the rest of the name is enough.
        assert name in joined or (width < 160 and name.rpartition("-")[0] in joined)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rates"], 4),
        (["mqar-moe"], 4),
        (["*-s1-*"], 4),
        (["--where", "variant=moe optimizer.lr<5e-3"], 2),
        (["--where", "sweep=rates test/accuracy>.515"], 2),
        (["--where", "sweep!=rates"], 4),
        (["rates", "mqar-vanilla"], 4),
    ],
)
def test_runs_are_chosen_by_sweep_start_pattern_and_condition(runs_dir, capsys, words, expected):
    assert len(listed(capsys, runs_dir, *words)) == expected


def test_every_command_that_takes_runs_takes_the_same_words(runs_dir, capsys):
    words = ["rates", "--where", "optimizer.lr=0.01", f"runs_dir={runs_dir}", "--format", "json"]
    (panel,) = json.loads(printed(capsys, "compare", *words))["panels"]
    in_comparison = {run for group in panel["groups"] for run in group["runs"]}
    in_list = {row["run"] for row in json.loads(printed(capsys, "runs", *words))["runs"]}
    assert in_comparison == in_list
    assert len(in_list) == 2
    in_python = attnlab.runs("rates", "optimizer.lr=0.01", runs_dir=runs_dir)
    assert {run.name for run in in_python} == in_list


def test_a_start_ends_with_a_word_where_it_can(tmp_path):
    for seed in (1, 10, 11):
        write(tmp_path, f"mqar-moe-1x64-s{seed}-{seed:010x}", result("moe", 1, seed))
    found = find_records("mqar-moe-1x64-s1", tmp_path)
    assert [record.name for record in found] == [f"mqar-moe-1x64-s1-{1:010x}"]
    assert len(find_records("mqar-moe-1x64-s", tmp_path)) == 3


def test_tags_and_notes_are_shown_and_can_be_asked_for(runs_dir, capsys):
    run = f"mqar-moe-1x64-lr0.01-s1-{7:010x}"
    printed(capsys, "runs", "tag", "best", run, "--runs-dir", runs_dir)
    printed(capsys, "runs", "note", "used in figure 2", run, "--runs-dir", runs_dir)
    assert listed(capsys, runs_dir, "--where", "tag=best") == [run]
    details = json.loads(
        printed(capsys, "runs", "show", run, "--runs-dir", runs_dir, "--format", "json")
    )
    assert details["tags"] == ["best"]
    assert [note["text"] for note in details["notes"]] == ["used in figure 2"]
    assert "used in figure 2" in printed(capsys, "runs", "show", run, "--runs-dir", runs_dir)
    printed(capsys, "runs", "untag", "best", "--where", "tag=best", "--runs-dir", runs_dir)
    assert attnlab.runs(runs_dir=runs_dir)[0].annotations.tags == ()


def test_a_difference_names_what_differs_and_nothing_else(runs_dir, capsys):
    first, second = (f"mqar-moe-1x64-lr{r}-s1-{n:010x}" for r, n in (("0.001", 5), ("0.01", 7)))
    diff = json.loads(
        printed(capsys, "runs", "diff", first, second, "--runs-dir", runs_dir, "--format", "json")
    )
    assert diff["config"] == [{"key": "optimizer.lr", "first": 0.001, "second": 0.01}]
    assert {pair["key"] for pair in diff["metrics"]} == {"test/accuracy", "test/loss"}
    same = printed(capsys, "runs", "diff", first, first, "--runs-dir", runs_dir)
    assert "differ in nothing" in same


def test_archived_runs_are_left_out_until_they_are_named_or_restored(runs_dir, capsys):
    run = f"mqar-moe-1x64-lr0.01-s1-{7:010x}"
    printed(capsys, "runs", "archive", run, "--runs-dir", runs_dir)
    assert run in names(runs_dir)
    assert run not in listed(capsys, runs_dir)
    assert run not in listed(capsys, runs_dir, "mqar-*")
    assert run not in listed(capsys, runs_dir, str(runs_dir))
    assert listed(capsys, runs_dir, run) == [run]
    assert run in listed(capsys, runs_dir, "--archived")
    printed(capsys, "runs", "restore", "mqar-moe", "--runs-dir", runs_dir)
    assert run in listed(capsys, runs_dir)


def test_deleting_asks_says_what_it_frees_and_takes_the_whole_run(runs_dir, capsys, monkeypatch):
    run = f"mqar-moe-1x64-lr0.01-s1-{7:010x}"
    words = ["runs", "delete", run, "--runs-dir", str(runs_dir)]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return "" if len(questions) == 1 else "y"

    monkeypatch.setattr("builtins.input", answer)
    before = names(runs_dir)
    assert "nothing was deleted" in printed(capsys, *words)
    assert names(runs_dir) == before
    assert "1 run" in printed(capsys, *words)
    assert re.search(r"frees [\d.]+ k?B", questions[1])
    assert names(runs_dir) == before - {run}


def test_a_deletion_that_was_killed_leaves_no_half_of_a_run(runs_dir, capsys, monkeypatch):
    first, second = sorted(names(runs_dir))[:2]

    class Killed(BaseException):
        pass

    def killed(path):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(Killed):
            main(["runs", "delete", first, "--yes", "--runs-dir", str(runs_dir)])
    capsys.readouterr()
    assert first not in listed(capsys, runs_dir)
    assert [path for path in names(runs_dir) if path.startswith(DELETED)]
    printed(capsys, "runs", "delete", second, "--yes", "--runs-dir", runs_dir)
    assert not [path for path in names(runs_dir) if path.startswith(DELETED)]


def test_a_run_that_another_continues_is_not_deleted_alone(runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    parent = f"mqar-moe-1x64-lr0.01-s1-{7:010x}"
    write(runs_dir, "mqar-moe-1x64-s1-continued", result("moe", 1, 1))
    claim_path = runs_dir / "mqar-moe-1x64-s1-continued" / "attempts" / "1" / "claim.json"
    origin = {"attempt": 1, "step": 500, "sha256": "0" * 64, "run": parent}
    claim = {"schema": 1, "host": "elsewhere", "pid": 1, "process_start": 0.0, "at": ""}
    claim_path.parent.mkdir(parents=True, exist_ok=True)
    claim_path.write_text(json.dumps({**claim, "resumed_from": origin}))
    before = names(runs_dir)
    assert main(["runs", "delete", parent, "--yes", "--runs-dir", str(runs_dir)]) == 2
    assert f"continues {parent}" in capsys.readouterr().err
    assert names(runs_dir) == before
    both = [parent, "mqar-moe-1x64-s1-continued"]
    printed(capsys, "runs", "delete", *both, "--yes", "--runs-dir", runs_dir)
    assert names(runs_dir) == before - {*both}


def test_a_wrong_request_changes_nothing(runs_dir, capsys):
    at = ["--runs-dir", str(runs_dir)]
    before = {path: path.read_bytes() for path in runs_dir.rglob("*") if path.is_file()}
    requests = {
        "show_none": ["runs", "show", *at],
        "diff_one": ["runs", "diff", "mqar-moe", *at],
        "show_several": ["runs", "show", "mqar-moe", *at],
        "tag_without_run": ["runs", "tag", "best", *at],
        "tag_alone": ["runs", "tag", *at],
        "tag_of_two_words": ["runs", "tag", "very good", "mqar-moe", *at],
        "no_such_run": ["runs", "delete", "parity", "--yes", *at],
        "delete_without_answer": ["runs", "delete", "mqar-moe", *at],
        "delete_all": ["runs", "delete", "--yes", *at],
        "where_typo": ["runs", "--where", "varaint=moe", *at],
    }
    refusals(capsys, "runs.command.{}", requests, runs_dir)
    assert {path: path.read_bytes() for path in before} == before
