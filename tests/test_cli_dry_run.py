"""What a command would train is listed, what cannot work is left out, and nothing is written."""

import json
from pathlib import Path

import pytest

from attnlab.cli import main
from attnlab.config import plan_sweep, search_path
from attnlab.experiment import Experiment
from attnlab.fit import StepSeconds, time_steps
from attnlab.launch import dry_run as module
from attnlab.launch.dry_run import DryRun, dry_run
from attnlab.process_state import random_states
from attnlab.run_record.record import find_runs
from tests.prose import says

SMALL = ("debug=tiny", "dataset.num_train=200", "model.d_model=16", "trainer.threads=1")
QUICK = (*SMALL, "trainer.max_steps=2", "trainer.val_check_interval=2")
GRID = ("model/position=rope,none", "model/mixer=multihead,gated_delta")
STEP = StepSeconds(training=2.0, evaluation=0.5)


@pytest.fixture
def timed(monkeypatch) -> list[Experiment]:
    """The experiments whose steps are measured, each with the same times."""
    experiments: list[Experiment] = []

    def stub(experiment: Experiment, budget: float) -> StepSeconds:
        assert 0 < budget <= module.MOST_SECONDS_EACH
        experiments.append(experiment)
        return STEP

    monkeypatch.setattr(module, "time_steps", stub)
    return experiments


def planned(*overrides: str, jobs: int = 1, seconds: float = 10.0) -> DryRun:
    with search_path() as own:
        return dry_run(plan_sweep(overrides, own, is_multirun=True), jobs, seconds)


def test_what_would_be_trained_is_what_is_trained_then(tmp_path, capsys, timed):
    words = [*QUICK, f"runs_dir={tmp_path / 'runs'}", "variant=lstm"]
    assert main(["train", "--dry-run", "--format", "json", *words]) == 0
    (before,) = json.loads(capsys.readouterr().out)["runs"]
    assert list(tmp_path.iterdir()) == []
    assert main(["train", *words]) == 0
    (record,) = find_runs(tmp_path / "runs")
    result = record.result
    assert result is not None
    assert (before["name"], before["state"], before["steps"]) == (record.name, "new", 2)
    assert before["parameters"] == result.parameters
    assert before["flops_per_token"] == result.flops_per_token
    assert before["tokens"] == result.tokens
    capsys.readouterr()
    assert main(["train", "-m", "--dry-run", *words, "seed=0,1"]) == 0
    finished, new = planned(*words, "seed=0,1").runs
    assert (finished.state, finished.steps, finished.tokens) == ("finished", 0, 0)
    assert (new.state, new.steps, new.differs) == ("new", 2, "seed=1")
    hidden = [run.name for run in (finished, new)]
    says("cli.dry_run.partly_finished", capsys.readouterr().out, *hidden)


def test_a_step_is_measured_once_for_all_runs_that_cost_the_same(timed, tmp_path):
    where = (*QUICK, f"runs_dir={tmp_path}")
    report = planned(*where, "seed=0,1", "optimizer.lr=0.1,0.2", "dataset.seed=0,1")
    assert len(timed) == 1
    assert len({run.name for run in report.runs}) == len(report.runs) == 8
    timed.clear()
    planned(*where, "model.num_layers=1,2", "batch_size=8,16", "variant=lstm,multihead")
    assert len(timed) == 8


def test_the_estimate_is_steps_and_validations_and_the_last_evaluation(timed, tmp_path):
    small = ("dataset.num_validation=60", "dataset.num_test=20", "batch_size=20")
    words = (*SMALL, *small, f"runs_dir={tmp_path}", "seed=0,1", "trainer.val_check_interval=10")
    report = planned(*words, "trainer.max_steps=30", jobs=2)
    validation, test = 3, 1
    each = 30 * 2.0 + (3 * validation + validation + test) * 0.5
    assert [run.seconds for run in report.runs] == [each, each]
    # Both at once.
    assert report.seconds == each


def test_what_there_is_no_time_to_measure_has_no_estimate(timed, tmp_path, capsys, monkeypatch):
    report = planned(*QUICK, f"runs_dir={tmp_path}", seconds=0.0)
    assert timed == []
    assert (report.seconds, report.runs[0].seconds) == (None, None)
    assert report.runs[0].parameters > 0
    monkeypatch.setattr(module, "TIMING_SECONDS", 0.0)
    assert main(["train", "--dry-run", *QUICK, f"runs_dir={tmp_path}"]) == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_real_steps_are_measured_and_leave_the_process_as_it_was(composed, precision):
    words = (*QUICK, f"trainer.precision={precision}", "trainer.accumulate_grad_batches=2")
    experiment = Experiment(composed(*words))
    before = random_states()
    seconds = time_steps(experiment, budget=0.01)
    assert 0 < seconds.training < 60
    assert 0 < seconds.evaluation < 60
    assert random_states()["torch"].equal(before["torch"])


def test_cells_that_cannot_work_are_left_out_listed_and_the_others_trained(tmp_path, capsys):
    words = ["-m", *QUICK, f"runs_dir={tmp_path}", *GRID, "skip_impossible=true"]
    assert main(["train", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("[1/3]"))
    says("cli.skip_impossible.left_out", "\n".join(lines[: min(first, 3)]))
    says("cli.skip_impossible.counts", lines[-1])
    assert [record.state for record in find_runs(tmp_path)] == ["finished"] * 3
    assert all("skip_impossible" not in record.identity for record in find_runs(tmp_path))
    # The same runs without it.
    assert main(["train", "-m", *words[1:-2], "model/mixer=multihead", words[-3]]) == 0
    assert "2 skipped" in capsys.readouterr().out


def test_cells_that_are_left_out_stand_in_the_dry_run(timed, tmp_path):
    words = (*QUICK, f"runs_dir={tmp_path}", *GRID, "skip_impossible=true")
    report = planned(*words)
    ((fault, labels),) = report.impossible.items()
    assert "RoPE" in fault
    assert labels == ["model/position=rope model/mixer=gated_delta"]
    assert len(report.runs) == 3


def test_an_experiment_of_ones_own_may_skip_what_is_impossible(timed, tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nskip_impossible: true\n"
    (tmp_path / "experiment/grid.yaml").write_text(text)
    where = ["--config-dir", str(tmp_path), f"runs_dir={tmp_path / 'runs'}"]
    words = ["-m", "--dry-run", *QUICK, *where, *GRID, "+experiment=grid"]
    assert main(["train", *words]) == 0
    assert "left out" in capsys.readouterr().out
    assert not Path(tmp_path / "runs").exists()
