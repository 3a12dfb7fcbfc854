"""The program as its users meet it: words, exit codes, and nothing half-written."""

import errno
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from attnlab.cli import COMMANDS, main
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record, find_runs
from attnlab.run_record.result import FailedAttempt
from tests.choices import causal_variants, choices
from tests.fabricated import interrupted
from tests.prose import says
from tests.refusals import refusals, refused

FEW = ["callbacks.recorder.num_probes=1", "dataset.num_validation=20", "dataset.num_test=20"]
TINY = ["debug=tiny", "dataset.num_train=200", "model.d_model=16", "trainer.threads=1", *FEW]
QUICK = [*TINY, "trainer.max_steps=2", "trainer.val_check_interval=2"]


def train(runs_dir: Path, *words: str) -> int:
    return main(["train", *QUICK, f"runs_dir={runs_dir}", *words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A directory with one finished run."""
    runs_dir = tmp_path_factory.mktemp("trained")
    assert train(runs_dir) == 0
    return runs_dir


@pytest.fixture
def runs_dir(trained, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_a_run_ends_with_its_metrics_and_its_directory(tmp_path, capsys):
    assert train(tmp_path) == 0
    *_, validation, test, last = capsys.readouterr().out.strip().splitlines()
    assert validation.startswith("validation")
    assert test.startswith("test")
    record = Record(Path(last))
    result = record.result
    assert result is not None
    assert result.steps == 2
    assert result.network_depth == 4
    assert result.tokens == result.budget_tokens == 2 * 64 * 20
    assert record.identity == result.identity
    assert train(tmp_path) == 0
    assert len(record.attempts) == 1


def test_the_record_says_when_the_code_has_changed_since(runs_dir, capsys):
    (record,) = find_runs(runs_dir)
    path = record.path / "run.json"
    result = record.result
    assert result is not None
    before = replace(result, code={**result.code, "attnlab.ffn.mlp.MLP": "0" * 64})
    path.unlink()
    path.write_text(json.dumps(before.to_json()))
    assert train(runs_dir) == 0
    assert "attnlab.ffn.mlp.MLP" in capsys.readouterr().out


ON_TEXT = ("multihead", "lstm")


@pytest.mark.parametrize(
    ("variant", "dataset"),
    [
        *((variant, "mqar") for variant in causal_variants()),
        *(pytest.param(variant, "pydocs", marks=pytest.mark.slow) for variant in ON_TEXT),
    ],
)
def test_every_variant_trains_on_every_kind_of_data(tmp_path, variant, dataset):
    small = ["dataset.length=16"] if dataset == "pydocs" else ["dataset.num_train=200", *FEW]
    words = ["debug=tiny", "trainer.max_steps=2", "model.d_model=16", "trainer.threads=1", *small]
    where = [f"variant={variant}", f"dataset={dataset}", f"runs_dir={tmp_path}"]
    assert main(["train", *words, *where]) == 0


@pytest.mark.parametrize(
    ("variant", "precision"),
    [
        *(("moe", "bf16-mixed"), ("lstm", "64-true")),
        pytest.param("moe", "64-true", marks=pytest.mark.slow),
        pytest.param("lstm", "bf16-mixed", marks=pytest.mark.slow),
    ],
)
def test_other_precisions_train(tmp_path, variant, precision):
    assert train(tmp_path, f"variant={variant}", f"trainer.precision={precision}") == 0


def test_the_causal_arm_trains(tmp_path):
    assert train(tmp_path, "objective.causal=true") == 0


def summary(printed: str) -> str:
    """Give the line that counts a sweep's runs."""
    (line,) = re.findall(r"^\d+ runs: .*$", printed, re.MULTILINE)
    return line


def test_a_sweep_does_every_cell_and_the_same_command_only_what_is_missing(tmp_path, capsys):
    words = ["-m", "variant=vanilla,lstm"]
    assert train(tmp_path, *words) == 0
    says("cli.sweep.finished", summary(capsys.readouterr().out))
    assert train(tmp_path, *words, "depth=base") == 0
    says("cli.sweep.skipped", summary(capsys.readouterr().out))
    assert train(tmp_path, *words, "seed=0,1") == 0
    says("cli.sweep.what_is_missing", summary(capsys.readouterr().out))
    assert [len(record.attempts) for record in find_runs(tmp_path)] == [1] * 4


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path, capsys):
    words = ["-m", "optimizer.lr=1e30,1e-3", "optimizer.gradient_clip=null"]
    hot = ["schedule=constant", "trainer.max_steps=6"]
    assert train(tmp_path, *words, *hot) == 1
    says("cli.sweep.failed", summary(capsys.readouterr().out))
    records = find_runs(tmp_path)
    assert sorted(record.state for record in records) == ["failed", "finished"]
    (ended,) = (r.attempts[0].summary for r in records if r.state == "failed")
    assert isinstance(ended, FailedAttempt)
    assert ended.error.cause == "diverged"
    assert train(tmp_path, *words, *hot) == 1
    says("cli.sweep.refused", summary(capsys.readouterr().out))


def test_a_wrong_request_exits_2_says_why_and_writes_nothing(tmp_path, capsys):
    requests = {
        "knob": ["model.num_haeds=3"],
        "choice": ["variant=multihed"],
        "value": ["model.num_layers=two"],
        "heads": ["model.mixer.num_heads=5"],
        "config_dir": ["--config-dir", "nowhere"],
        "batch": ["batch_size=500"],
        "jobs": ["-j", "2"],
        "cells": ["-m", "model.mixer.num_heads=2,3", "variant=multihead,lstm"],
    }
    quick = [word for word in QUICK if word not in FEW]
    where = ["train", *quick, f"runs_dir={tmp_path / 'runs'}"]
    every = {name: [*where, *words] for name, words in requests.items()}
    refusals(capsys, "cli.wrong.{}", every, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_hold_runs_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    words = ["train", *QUICK, f"runs_dir={tmp_path / 'file' / 'runs'}"]
    refused(capsys, "cli.no_directory", words, tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_record_stops_the_run_and_is_left_as_it_is(runs_dir, capsys):
    (record,) = find_runs(runs_dir)
    for name, content in (("no_record", "[1]"), ("newer", '{"schema": 9}')):
        (record.path / "run.json").unlink()
        (record.path / "run.json").write_text(content)
        words = ["train", *QUICK, f"runs_dir={runs_dir}"]
        refused(capsys, f"cli.damaged.{name}", words, record.path)
        assert (record.path / "run.json").read_text() == content


def test_a_directory_of_another_run_is_not_touched(trained, tmp_path, capsys):
    (record,) = find_runs(trained)
    Attempt.claim(tmp_path / record.name, {"seed": 1}).end(interrupted())
    words = ["train", *QUICK, f"runs_dir={tmp_path}"]
    refused(capsys, "cli.another_run", words, tmp_path / record.name)


def test_the_config_can_be_printed_and_nothing_is_trained(tmp_path, capsys):
    assert train(tmp_path / "runs", "--cfg") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["mixer"]["num_heads"] == 4
    assert not (tmp_path / "runs").exists()


def test_an_unknown_command_is_refused(capsys):
    assert main(["trian"]) == 2
    says("cli.unknown_command", capsys.readouterr().err)
    assert main([]) == 2
    assert main(["--version"]) == 0


def test_an_error_of_ours_is_said_to_be_ours(monkeypatch, capsys):
    import attnlab.commands.list as command

    monkeypatch.setattr(command, "choice_files", lambda _: 1 / 0)
    assert main(["list"]) == 1
    says("cli.error_of_ours", capsys.readouterr().err)
    assert main(["list", "--traceback"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert "ZeroDivisionError" in printed


def test_every_command_explains_itself(capsys):
    for command, summary in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert summary.split()[0] in capsys.readouterr().out, command


def test_list_gives_name_summary_and_knobs(capsys):
    assert main(["list", "model/mixer", "--format", "json"]) == 0
    listed = {choice["name"]: choice for choice in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(choices("model/mixer"))
    knobs = {"num_heads": 4, "dropout": 0.0, "bias": True, "query_key_norm": False}
    assert listed["multihead"]["knobs"] == knobs
    assert "Vaswani" in listed["multihead"]["summary"]


def test_every_choice_has_a_summary_or_knobs(capsys):
    for group in ("variant", "dataset", "depth", "model/ffn", "trainer", "debug"):
        assert main(["list", group, "--format", "json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert listed
        assert [
            choice["name"] for choice in listed if not (choice["summary"] or choice["knobs"])
        ] == []


def test_list_without_a_group_names_all_groups_and_a_wrong_one_is_refused(capsys):
    assert main(["list", "--format", "json"]) == 0
    assert {"model/mixer", "variant"} <= set(json.loads(capsys.readouterr().out))
    refused(capsys, "cli.unknown_group", ["list", "varaint"])


@pytest.mark.parametrize(
    "words", ["list | head -1", "--help | true", "list | true", "compare | true", "list >&-"]
)
def test_a_reader_that_leaves_early_is_no_error(runs_dir, words):
    command = f"set -o pipefail; {sys.executable} -m attnlab.cli {words}"
    environment = {**os.environ, "ATTNLAB_RUNS": str(runs_dir)}
    shell = {"shell": True, "executable": "/bin/bash", "env": environment}
    done = subprocess.run(command, capture_output=True, text=True, **shell)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_on_a_full_disk_is_told():
    command = [sys.executable, "-m", "attnlab.cli", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    says("cli.full_disk", done.stderr)


def test_a_sweep_goes_on_when_its_reader_leaves(tmp_path, monkeypatch):
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "nobody reads")

    monkeypatch.setattr(sys, "stdout", Left())
    assert train(tmp_path, "-m", "seed=0,1") == 0
    assert [record.state for record in find_runs(tmp_path)] == ["finished"] * 2


def test_a_finished_run_says_how_a_logger_gets_it_until_it_has(runs_dir, capsys):
    assert train(runs_dir, "logger=csv") == 0
    says("cli.logger_of_a_finished_run", capsys.readouterr().out.splitlines()[0], runs_dir)
    assert main(["sync", "--to", "csv", "--runs-dir", str(runs_dir)]) == 0
    capsys.readouterr()
    assert train(runs_dir, "logger=csv") == 0
    assert capsys.readouterr().out.splitlines()[0] == "skipped: finished before"


def test_the_lease_of_a_holder_is_a_knob_and_changes_no_run(runs_dir, capsys):
    assert train(runs_dir, "lease=0.5") == 0
    assert len(find_runs(runs_dir)) == 1
    for lease in ("0", "-1", "nan", "soon"):
        assert train(runs_dir, f"lease={lease}") == 2
    says("cli.no_lease", capsys.readouterr().err)


def test_what_a_dataset_left_out_is_said_once_in_a_sweep(tmp_path, capsys, monkeypatch):
    from attnlab.dataset.pronoun import Pronoun

    monkeypatch.setattr(Pronoun, "notes", ["train: 59 of 900 sentences are left out"])
    assert train(tmp_path, "-m", "seed=0,1") == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "pronoun: train: 59 of 900 sentences are left out"
    assert first not in others


def test_a_place_for_runs_that_cannot_be_made_is_refused(tmp_path, capsys):
    for place in ("/proc/none/runs", f"/tmp/{'x' * 300}"):
        assert main(["train", *QUICK, f"runs_dir={place}"]) == 2
        says(f"cli.no_place.{place[1:4]}", capsys.readouterr().err, "x" * 300)
    outputs = {"bench": ["bench"], "export": ["data", "export", "pronoun"]}
    refusals(capsys, "cli.no_output.{}", {n: [*w, "-o", "/proc/x"] for n, w in outputs.items()})


def test_a_warm_up_that_is_longer_than_the_run_is_said(tmp_path, capsys):
    words = ["train", *TINY, "depth=shallow", f"runs_dir={tmp_path}"]
    assert main(words) == 0
    assert "warmup" not in capsys.readouterr().out
    words = [word for word in QUICK if not word.startswith("debug")]
    assert main(["train", *words, f"runs_dir={tmp_path}"]) == 0
    says("cli.long_warm_up", capsys.readouterr().out.splitlines()[0])


def test_a_sweep_can_train_several_runs_at_once(tmp_path):
    assert train(tmp_path, "-m", "-j", "2", "seed=0,1") == 0
    assert train(tmp_path, "-m", "seed=0,1") == 0
    assert [(r.state, len(r.attempts)) for r in find_runs(tmp_path)] == [("finished", 1)] * 2


def test_python_m_attnlab_is_the_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attnlab", "--version"])
    monkeypatch.delitem(sys.modules, "attnlab.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("attnlab", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("attnlab ")
