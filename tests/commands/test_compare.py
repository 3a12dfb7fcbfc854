"""`attnlab compare` prints what the records say: a table that fits, or JSON and nothing else."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from attnlab.cli import main
from tests.fabricated import result, write


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("ATTNLAB_RUNS", raising=False)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """4 variants x 2 depths x 3 seeds."""
    variants = ("vanilla", "multihead", "moe", "lstm")
    random = np.random.default_rng(0)
    for place, (variant, depth, seed) in enumerate(product(variants, (1, 2), (0, 1, 2))):
        accuracy = 0.99 - 0.02 * variants.index(variant) + random.normal(0, 0.004)
        started = f"2026-01-01T00:00:{place:02}Z"
        content = result(variant, depth, seed, accuracy=accuracy, started=started)
        write(tmp_path / "runs", f"mqar-{variant}-{depth}x64-s{seed}-{place:03}", content)
    return tmp_path / "runs"


def leave(runs_dir: Path, name: str, status: str | None) -> None:
    """Leave a run that never finished: ended with a status, or killed before it could say one."""
    attempt = runs_dir / name / "attempts" / "1"
    attempt.mkdir(parents=True)
    (runs_dir / name / "config.yaml").write_text(yaml.safe_dump(result()["identity"]))
    claim = {"schema": 1, "host": "elsewhere", "pid": 1, "process_start": 0.0}
    (attempt / "claim.json").write_text(json.dumps({**claim, "resumed_from": None}))
    if status:
        (attempt / "run.json").write_text(json.dumps({"schema": 1, "status": status}))


def told(capsys, *words) -> tuple[int, str, str]:
    code = main(["compare", *map(str, words)])
    return code, *capsys.readouterr()


def test_the_table_shows_every_group_and_fits_80_columns(runs_dir, capsys):
    code, out, err = told(capsys, "--runs-dir", runs_dir)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mqar: test/accuracy (higher is better)" in lines[0]
    rows = [line.split() for line in lines if line.startswith(("vanilla", "multi", "moe", "lstm"))]
    assert [row[:3] for row in rows] == [
        [v, d, "3"] for v, d in product(("vanilla", "multihead", "moe", "lstm"), "12")
    ]
    assert ["baseline" in row for row in rows] == [True] + 7 * [False]
    assert "Holm-corrected for 7" in out
    assert rows[0][-2:] == ["50", "k"]


def test_the_table_says_what_the_json_says(runs_dir, capsys):
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


@pytest.mark.parametrize("columns", [30, 40, 50, 60, 70, 100])
@pytest.mark.parametrize("metric", ["test/accuracy", "test/loss"])
def test_no_line_is_wider_than_the_terminal(columns, metric, runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = told(capsys, "--runs-dir", runs_dir, "--metric", metric)
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns


@pytest.mark.parametrize("columns", [70, 80, 100])
def test_an_interval_is_never_broken_where_it_fits_under_its_number(
    columns, runs_dir, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = told(capsys, "--runs-dir", runs_dir)
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
    assert "mqar at optimizer.lr=0.002: test/accuracy" in out.splitlines()[0]
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
    assert list(whole) == ["schema", "panels", "left_out"]
    assert (whole["schema"], whole["left_out"]) == (1, [])
    (panel,) = whole["panels"]
    assert list(panel) == [
        *("dataset", "where", "metric", "higher_is_better", "baseline"),
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
    assert "fewer than 3 seeds: not evidence for a claim" in panel["notes"]
    assert "fewer than 3 seeds: not evidence for a claim" in table


def test_a_side_metric_that_is_no_number_is_null(tmp_path, capsys):
    metrics = {"test/accuracy": 0.5, "test/loss": float("nan")}
    write(tmp_path, "a", result(metrics=metrics))
    _, out, _ = told(capsys, "--runs-dir", tmp_path, "--format", "json")
    group = json.loads(out)["panels"][0]["groups"][0]
    assert group["metrics"]["test/loss"]["mean"] is None
    assert group["metrics"]["test/accuracy"]["mean"] == 0.5


def test_runs_without_a_result_are_counted_and_listed(runs_dir, capsys):
    leave(runs_dir, "stopped", "interrupted")
    leave(runs_dir, "away", None)
    leave(runs_dir, "broken", "failed")
    _, table, _ = told(capsys, "--runs-dir", runs_dir)
    said = "left out: 2 not finished: away (running), stopped (interrupted); 1 failed: broken"
    assert said in " ".join(table.split())
    _, out, _ = told(capsys, "--runs-dir", runs_dir, "--format", "json")
    assert json.loads(out)["left_out"] == [
        {"run": "away", "state": "running"},
        {"run": "broken", "state": "failed"},
        {"run": "stopped", "state": "interrupted"},
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["*-moe-2x64-*"], {"moe"}),
        (["*-moe-*", "*-moe-2x64-*", "mqar-lstm-1x64-s0"], {"moe", "lstm"}),
        (["mqar-vanilla-1x64-s0-000"], {"vanilla"}),
    ],
)
def test_runs_are_chosen_by_pattern_prefix_and_name_and_count_once(
    words, expected, runs_dir, capsys
):
    code, out, _ = told(capsys, *words, "--runs-dir", runs_dir, "--format", "json")
    assert code == 0
    assert {group["variant"] for group in json.loads(out)["panels"][0]["groups"]} == expected


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs-dir", "{}/none"], "attnlab train"),
        (["--runs-dir", "{}/empty"], "holds no runs; `attnlab train` makes some"),
        (["--runs-dir", "{}/runs", "*nothing*"], "has a name like '*nothing*'"),
        (["--runs-dir", "{}/runs", "mqar-moe"], "say more of the name"),
        (["--runs-dir", "{}/runs", "--by", "variant"], "write --by variant num_layers"),
        (["--runs-dir", "{}/runs", "--metric", "loss/test"], "did you mean test/loss?"),
        (["--runs-dir", "{}/runs", "--baseline", "variant=gru"], "none of the groups"),
        (["--runs-dir", "{}/unfinished"], "no run is finished: 1 failed: broken"),
    ],
)
def test_a_wrong_request_says_what_to_do_on_standard_error_and_exits_2(
    words, said, runs_dir, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    leave(tmp_path / "unfinished", "broken", "failed")
    code, out, err = told(capsys, *(word.format(tmp_path) for word in words))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("content", ["{", json.dumps({"schema": 99}), "[]"])
def test_a_damaged_or_newer_record_exits_2_and_names_the_file(content, runs_dir, capsys):
    (runs_dir / "mqar-moe-1x64-s0-012" / "run.json").write_text(content)
    code, out, err = told(capsys, "--runs-dir", runs_dir)
    assert (code, out) == (2, "")
    assert "mqar-moe-1x64-s0-012" in err
