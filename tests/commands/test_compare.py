"""`attnlab compare` prints what the records say: a table that fits, or JSON and nothing else."""

import csv
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import attnlab
from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select_runs
from attnlab.cli import main
from tests.fabricated import failed, interrupted, result, write
from tests.printed import without_numbers
from tests.prose import says
from tests.refusals import UNBROKEN, refusals


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 variants x 2 depths x 3 seeds."""
    variants = ("vanilla", "multihead", "moe", "lstm")
    random, runs_dir = np.random.default_rng(0), tmp_path_factory.mktemp("compare") / "runs"
    for place, (variant, depth, seed) in enumerate(product(variants, (1, 2), (0, 1, 2))):
        accuracy = 0.99 - 0.02 * variants.index(variant) + random.normal(0, 0.004)
        started = f"2026-01-01T00:00:{place:02}Z"
        content = result(variant, depth, seed, accuracy=accuracy, started=started)
        write(runs_dir, f"mqar-{variant}-{depth}x64-s{seed}-{place:03}", content)
    return runs_dir


def leave(runs_dir: Path, name: str, status: str | None) -> None:
    """Leave a run that never finished: ended with a status, or killed before it could say one."""
    attempt = runs_dir / name / "attempts" / "1"
    attempt.mkdir(parents=True)
    (runs_dir / name / "config.yaml").write_text(yaml.safe_dump(result().identity))
    claim = {"schema": 1, "host": "elsewhere", "pid": 1, "process_start": 0.0, "at": ""}
    (attempt / "claim.json").write_text(json.dumps({**claim, "resumed_from": None}))
    if status:
        summary = {"failed": failed, "interrupted": interrupted}[status]()
        (attempt / "run.json").write_text(json.dumps(summary.to_json()))


def told(capsys, *words) -> tuple[int, str, str]:
    code = main(["compare", *map(str, words)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (("vanilla", "moe"), "; p of the paired t-test; test: held out"),
        (
            ("vanilla", "moe", "lstm"),
            "Holm-corrected for 2 comparisons; intervals are not corrected",
        ),
    ],
)
def test_only_several_comparisons_are_corrected(tmp_path, capsys, arms, sentence):
    for place, variant in enumerate(arms):
        for seed in range(3):
            content = result(variant, 2, seed, 0.5 + (3 * place + seed) ** 2 / 100)
            write(tmp_path, f"{variant}-{seed}", content)
    _, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert sentence in " ".join(out.split())


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("validation/accuracy", "validation: for choosing settings; results are reported on test"),
        ("test/accuracy", "test: held out, measured once at the end"),
        ("test_80/accuracy", "test_80: held out, measured once at the end"),
        ("parameters", None),
    ],
)
def test_the_legend_says_what_the_split_is_for(tmp_path, capsys, metric, sentence):
    metrics = dict.fromkeys(("test/accuracy", "validation/accuracy", "test_80/accuracy"), 0.5)
    for seed in range(3):
        write(tmp_path, f"seed{seed}", result(seed=seed, metrics=metrics))
    _, out, _ = told(capsys, "--runs-dir", tmp_path, "--metric", metric)
    text = " ".join(out.split())
    assert sentence in text if sentence else "held out" not in text


def test_the_table_shows_every_group_and_fits_80_columns(runs_dir, capsys):
    code, out, err = told(capsys, "--runs-dir", runs_dir)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    says("commands.compare.printed", without_numbers(out))
    rows = [line.split() for line in lines if line.startswith(("vanilla", "multi", "moe", "lstm"))]
    assert [row[:3] for row in rows] == [
        [v, d, "3"] for v, d in product(("vanilla", "multihead", "moe", "lstm"), "12")
    ]
    assert ["baseline" in row for row in rows] == [True] + 7 * [False]
    assert rows[0][-2:] == ["50", "k"]


def test_the_table_says_what_the_json_says(runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, table, _ = told(capsys, "--runs-dir", runs_dir)
    _, text, _ = told(capsys, "--runs-dir", runs_dir, "--format", "json")
    group = json.loads(text)["panels"][0]["groups"][-1]
    given = group["metrics"]["test/accuracy"]
    shown = next(line for line in reversed(table.splitlines()) if line.startswith("lstm"))
    mean, low, high = (word.strip("[],") for word in shown.split()[3:6])
    decimals = len(mean.split(".")[1])
    for key, word in (("mean", mean), ("low", low), ("high", high)):
        assert float(word) == pytest.approx(given[key], abs=0.5001 * 10**-decimals)
    # Two digits of the interval's width.
    width = given["high"] - given["low"]
    assert 10 <= round(width * 10**decimals) <= 99


def test_no_line_is_wider_than_the_terminal_and_no_interval_is_broken_where_it_fits(
    runs_dir, capsys, monkeypatch
):
    for columns, metric in product((30, 50, 70, 80, 100), ("test/accuracy", "test/loss")):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, _ = told(capsys, "--runs-dir", runs_dir, "--metric", metric)
        assert code == 0
        assert max(map(len, out.splitlines())) <= columns, (columns, metric)
        if columns >= 70 and metric == "test/accuracy":
            table = out.partition("mean over")[0].splitlines()
            assert sum(line.count("[") for line in table) == 8 + 7
            assert all(line.count("[") == line.count("]") for line in table)


def test_many_keys_fit_80_columns_with_every_value_readable(tmp_path, capsys):
    cells = list(product(("vanilla", "moe"), (1, 2), (64, 128), (0.002, 0.01)))
    random = np.random.default_rng(0)
    for place, (variant, depth, width, lr) in enumerate(cells):
        knobs = {"optimizer.lr": lr} | {"model.d_model": width}
        for seed in range(3):
            content = result(variant, depth, seed, accuracy=random.uniform(0.9, 1), knobs=knobs)
            write(tmp_path, f"run-{place:02}-{seed}", content)
    code, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    rows = [line.split()[:5] for line in out.splitlines() if line.startswith(("vanilla", "moe"))]
    assert rows == [[v, str(d), str(w), str(lr), "3"] for v, d, w, lr in cells]


def test_what_is_the_same_in_every_row_is_said_once(runs_dir, capsys):
    keys = ["variant", "num_layers", "optimizer.lr"]
    _, out, _ = told(capsys, "--runs-dir", runs_dir, "--by", *keys)
    assert "optimizer.lr=0.002" in out.splitlines()[0]
    assert out.count("0.002") == 1


def test_a_pipe_gets_plain_text(runs_dir, capsys):
    _, out, _ = told(capsys, "--runs-dir", runs_dir)
    assert out.isascii()
    assert "\x1b" not in out


def test_markup_in_a_name_is_text(tmp_path, capsys):
    for seed in range(3):
        write(tmp_path, f"a-{seed}", result("[red]mine[/red]", seed=seed))
        write(tmp_path, f"b-{seed}", result(":smile:", seed=seed))
    leave(tmp_path, "[bold]late", "failed")
    code, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert code == 0
    for name in ("[red]mine[/red]", ":smile:", "1 failed: [bold]late"):
        assert name in out


def test_json_is_whole_and_alone_on_standard_output(runs_dir, capsys):
    code, out, err = told(capsys, "--runs-dir", runs_dir, "--format", "json")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert list(whole) == ["schema", "panels", "left_out", "notes"]
    assert (whole["schema"], whole["left_out"]) == (2, [])
    (panel,) = whole["panels"]
    assert list(panel) == [
        *("dataset", "panel_keys", "metric", "higher_is_better", "baseline"),
        *("groups", "differences", "notes"),
    ]
    assert panel["baseline"] == {"variant": "vanilla", "num_layers": 1}
    group = panel["groups"][0]
    assert list(group) == [
        *("label", "variant", "num_layers", "keys", "n", "seeds", "runs"),
        *("parameters", "active_parameters", "flops_per_token", "seconds", "metrics"),
    ]
    assert (group["n"], group["seeds"], len(group["runs"])) == (3, [0, 1, 2], 3)
    files = [json.loads((runs_dir / name / "run.json").read_text()) for name in group["runs"]]
    mean = np.mean([file["metrics"]["test/loss"] for file in files])
    assert group["metrics"]["test/loss"]["mean"] == pytest.approx(mean, rel=1e-15)
    assert list(panel["differences"][0]) == ["group", "keys", "n", "mean", "low", "high", "p"]
    assert len(panel["differences"]) == 7


def test_one_seed_has_no_interval_in_json_and_a_note_in_both(tmp_path, capsys):
    write(tmp_path, "a", result("vanilla"))
    write(tmp_path, "b", result("moe", accuracy=0.75))
    _, out, _ = told(capsys, "--runs-dir", tmp_path, "--format", "json")
    (panel,) = json.loads(out)["panels"]
    assert panel["groups"][0]["metrics"]["test/accuracy"] == {
        "mean": 0.5, "low": None, "high": None,
    }  # fmt: skip
    assert panel["differences"][0] | {"keys": 0} == {
        "group": "variant=moe", "keys": 0, "n": 1, "mean": 0.25, "low": None, "high": None,
        "p": None,
    }  # fmt: skip
    _, table, _ = told(capsys, "--runs-dir", tmp_path)
    (note,) = panel["notes"]
    says("commands.compare.few_seeds", note)
    assert note in " ".join(table.split())


def test_runs_without_a_result_are_counted_and_listed(tmp_path, capsys):
    write(tmp_path, "finished", result())
    leave(tmp_path, "stopped", "interrupted")
    leave(tmp_path, "away", None)
    leave(tmp_path, "broken", "failed")
    _, table, _ = told(capsys, "--runs-dir", tmp_path)
    says("commands.compare.left_out", " ".join(table.split()).partition("left out, ")[2])
    _, out, _ = told(capsys, "--runs-dir", tmp_path, "--format", "json")
    assert json.loads(out)["left_out"] == [
        {"run": "away", "state": "running", "reason": None},
        {"run": "broken", "state": "failed", "reason": None},
        {"run": "stopped", "state": "interrupted", "reason": None},
    ]


def test_runs_are_chosen_by_pattern_prefix_and_name_and_count_once(runs_dir, capsys):
    words = ("*-moe-*", "*-moe-2x64-*", "mqar-lstm-1x64-s0", "mqar-vanilla-1x64-s0-000")
    code, out, _ = told(capsys, *words, "--runs-dir", runs_dir, "--format", "json")
    assert code == 0
    groups = json.loads(out)["panels"][0]["groups"]
    assert [(group["variant"], group["num_layers"], group["n"]) for group in groups] == [
        *(("vanilla", 1, 1), ("moe", 1, 3), ("moe", 2, 3), ("lstm", 1, 1)),
    ]


def test_a_run_is_chosen_by_its_directory_wherever_it_is(runs_dir, tmp_path, capsys):
    path = runs_dir / "mqar-moe-1x64-s0-012"
    code, out, _ = told(capsys, path, "--runs-dir", tmp_path / "none", "--format", "json")
    assert code == 0
    assert json.loads(out)["panels"][0]["groups"][0]["runs"] == [path.name]


def test_the_runs_directory_comes_from_the_environment(runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("ATTNLAB_RUNS", str(runs_dir))
    assert told(capsys)[0] == 0


def test_the_same_name_in_two_directories_is_not_one_run(tmp_path, capsys):
    here = write(tmp_path / "here", "same", result(seed=0))
    there = write(tmp_path / "there", "same", result(seed=1))
    code, out, _ = told(capsys, here, there, "--format", "json")
    assert code == 0
    assert json.loads(out)["panels"][0]["groups"][0]["seeds"] == [0, 1]


def test_a_wrong_request_is_refused(runs_dir, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    leave(tmp_path / "unfinished", "broken", "failed")
    places = {
        "no_directory": tmp_path / "none",
        "no_runs": tmp_path / "empty",
        "none_finished": tmp_path / "unfinished",
    }
    requests = {name: ["compare", "--runs-dir", str(path)] for name, path in places.items()}
    wrong = {
        "pattern": ["*nothing*"],
        "prefix": ["parity"],
        "by": ["--by", "variant"],
        "metric": ["--metric", "loss/test"],
        "baseline": ["--baseline", "variant=gru"],
    }
    at = ["compare", "--runs-dir", str(runs_dir)]
    requests |= {name: [*at, *words] for name, words in wrong.items()}
    refusals(capsys, "commands.compare.{}", requests, tmp_path, runs_dir)


DAMAGED = {
    "damaged": "{",
    "newer": '{"schema": 99}',
    "no_result": "[]",
    "lacking": '{"schema": 1, "status": "finished", "attempt": 1}',
    "not_finite": json.dumps(result().to_json() | {"metrics": {"test/loss": float("nan")}}),
}


def test_a_damaged_or_newer_record_is_named_and_the_others_are_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    for seed in range(3):
        write(tmp_path / "runs", f"sound-{seed}", result(seed=seed))
    for name, content in DAMAGED.items():
        (write(tmp_path / "runs", name, result()) / "run.json").write_text(content)
    code, out, err = told(capsys, "--runs-dir", tmp_path / "runs", "--format", "json")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert [len(group["runs"]) for group in whole["panels"][0]["groups"]] == [3]
    assert {left["run"]: left["state"] for left in whole["left_out"]} == dict.fromkeys(
        DAMAGED, "damaged"
    )
    _, table, _ = told(capsys, "--runs-dir", tmp_path / "runs")
    assert all(name in table for name in DAMAGED)
    # Named by itself, it is the only thing to speak of.
    for name in DAMAGED:
        assert main(["compare", "--runs-dir", str(tmp_path / "runs"), name]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        # In brackets stands what the JSON library says.
        text = re.sub(r"is damaged \(.*\);", "is damaged (...);", printed.err)
        says(f"commands.compare.{name}", text, tmp_path)


def test_python_gives_what_the_command_prints(runs_dir, capsys):
    asked: dict[str, Any] = {
        "by": ["variant"],
        "metric": "test/loss",
        "baseline": "variant=moe",
        "allow": ["mixed"],
    }
    report = comparison(select_runs(["*-vanilla-*", "*-moe-*"], runs_dir), **asked)
    words = [word for name, value in asked.items() for word in (f"--{name}", *np.ravel(value))]
    at = ["--runs-dir", runs_dir, "--format", "json"]
    code, out, _ = told(capsys, "*-vanilla-*", "*-moe-*", *at, *words)
    assert code == 0
    assert json.loads(out) == report.to_json()
    (panel,), (summary,) = report.panels, report.summaries
    assert [group.n for group in summary.groups] == [len(group.seeds) for group in panel.groups]


def test_a_group_has_its_keys_at_its_root_and_under_keys(runs_dir):
    (panel,) = comparison(select_runs([], runs_dir)).to_json()["panels"]
    for group in panel["groups"]:
        assert group["keys"] == {key: group[key] for key in ("variant", "num_layers")}


def formatted(capsys, runs_dir: Path, form: str) -> str:
    code, out, err = told(capsys, "--runs-dir", runs_dir, "--format", form)
    assert (code, err) == (0, "")
    return out


def test_csv_has_the_numbers_of_the_json(runs_dir, capsys):
    rows = list(csv.DictReader(formatted(capsys, runs_dir, "csv").splitlines()))
    (panel,) = json.loads(formatted(capsys, runs_dir, "json"))["panels"]
    differences = {d["group"]: d for d in panel["differences"]}
    for row, group in zip(rows, panel["groups"], strict=True):
        assert (row["variant"], int(row["num_layers"])) == (group["variant"], group["num_layers"])
        measured = group["metrics"][row["metric"]]
        assert {key: float(row[key]) for key in measured} == measured
        difference = differences.get(group["label"])
        assert row["p_holm"] == ("" if difference is None else str(difference["p"]))


def test_latex_has_a_booktabs_table_with_escaped_text_and_a_caption(tmp_path, capsys):
    for seed in range(3):
        for variant in ("50%_a&b", "{c}~$d\\e^f#"):
            accuracy = 0.5 + seed / 100
            name = f"run-{seed}-{len(variant)}"
            write(tmp_path, name, result(variant, seed=seed, accuracy=accuracy))
    text = formatted(capsys, tmp_path, "latex")
    rows = sorted(text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines())
    assert len(rows) == 2
    assert all(row.endswith(r" \\") for row in rows)
    assert rows[0].startswith(r"50\%\_a\&b & 3 & ")
    escaped = r"\{c\}\textasciitilde{}\$d\textbackslash{}e\textasciicircum{}f\#"
    assert rows[1].startswith(f"{escaped} & 3 & ")
    # Neither what begins and ends a group nor what separates cells is ever left as it was.
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert "t-interval on the logit scale" in text.partition("\\caption")[2]


def test_markdown_has_a_row_for_each_group_under_its_title(runs_dir, capsys):
    title, _, heads, rules, *lines = formatted(capsys, runs_dir, "markdown").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert title == "**mqar: test/accuracy (higher is better)**"
    assert len(rows) == 8
    assert len({line.count("|") for line in (heads, rules, *rows)}) == 1


def test_keys_without_room_move_into_a_legend_below_the_table(tmp_path, capsys):
    long = [f"a_variant_with_a_long_name_number_{number}" for number in range(3)]
    for variant, width, seed in product(long, (64, 128), range(3)):
        knobs = {"model.d_model": width, "optimizer.lr": width / 1000}
        accuracy = 0.5 + seed / 100 + width / 1e4 + long.index(variant) / 1e3
        content = result(variant, seed=seed, accuracy=accuracy, knobs=knobs)
        write(tmp_path, f"run-{variant}-{width}-{seed}", content)
    _, out, _ = told(capsys, "--runs-dir", tmp_path)
    lines = out.splitlines()
    assert lines[1].split()[:2] == ["arm", "n"]
    assert [line.split()[0] for line in lines if line.startswith(tuple("ABCDEF"))] == [
        *"ABCDEF",
        *"ABCDEF",
    ]
    assert sum(name in line for line in lines for name in long) == 6
    assert max(map(len, lines)) <= 80


def test_two_seeds_are_said_and_have_no_interval(tmp_path, capsys):
    for variant, seed in product(("vanilla", "moe"), range(2)):
        write(tmp_path, f"run-{variant}-{seed}", result(variant, seed=seed, accuracy=0.5 + seed))
    _, out, _ = told(capsys, "--runs-dir", tmp_path)
    assert "n=2" in out
    assert "[" not in out
    (panel,) = json.loads(formatted(capsys, tmp_path, "json"))["panels"]
    assert panel["groups"][0]["metrics"]["test/accuracy"]["low"] is None
    assert panel["differences"][0]["p"] is None


def test_every_text_says_what_is_not_in_its_tables(tmp_path, capsys):
    for seed in range(3):
        for steps in (4, 8):
            tokens, knobs = 1280 * steps, {"trainer.max_steps": steps}
            for variant in ("vanilla", "moe"):
                run = result(variant, seed=seed, budget_tokens=tokens, tokens=tokens, knobs=knobs)
                write(tmp_path, f"{variant}-{steps}-{seed}", run)
    leave(tmp_path, "broken", "failed")
    report = attnlab.compare(attnlab.runs(tmp_path))
    assert len(report.panels) == 2
    assert len(report.footnotes) >= 2
    assert report.notes[0] in report.footnotes
    for words in ((), ("--format", "latex"), ("--format", "markdown")):
        _, out, _ = told(capsys, "--runs-dir", tmp_path, *words)
        text = " ".join(out.replace("\\", "").replace("% ", "").split())
        for footnote in report.footnotes:
            assert " ".join(footnote.split()) in text
