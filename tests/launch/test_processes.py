"""Processes of their own: GPUs are dealt out, what hangs or takes too much memory ends alone."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch

from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.errors import RequestError
from attnlab.launch import processes
from attnlab.launch.devices import deal_gpus, visible_gpus
from attnlab.launch.processes import Processes
from attnlab.launch.standstill import StandstillWatch
from attnlab.run_record.record import find_runs
from attnlab.run_record.result import FailedAttempt
from attnlab.run_record.sweep_record import SweepRecord
from tests.child import TINY


@pytest.fixture
def config(tmp_path):
    with search_path() as user_targets:
        return compose([*TINY, f"runs_dir={tmp_path}", "trainer.accelerator=auto"], user_targets)


def on_cpu(config):
    trainer = {**config.values["trainer"], "accelerator": "cpu"}
    return replace(config, values={**config.values, "trainer": trainer})


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, 3, ["0", "1", "2"]), ("5,7", 2, ["5", "7"]), ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"])],
)
def test_the_gpus_that_may_be_used_have_the_names_that_cuda_takes(
    monkeypatch, visible, count, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected


def test_gpus_are_dealt_out_evenly(config):
    gpus = [str(number) for number in range(8)]
    assert [deal_gpus(gpus, slot, config) for slot in range(8)] == gpus
    dealt = Counter(deal_gpus(gpus, slot, config) for slot in range(32))
    assert dealt == dict.fromkeys(gpus, 4)
    # One is found without a choice, and a run on the CPU needs none.
    assert deal_gpus(gpus[:1], 3, config) is None
    assert deal_gpus(gpus, 3, on_cpu(config)) is None


@pytest.mark.parametrize(
    ("gpus", "knobs", "jobs"),
    [
        (8, {}, 8),
        (8, {"per_gpu": 4}, 32),
        (8, {"jobs": 3}, 3),
        (0, {}, 3),
        (0, {"jobs": 2}, 2),
    ],
)
def test_how_many_runs_at_once(monkeypatch, gpus, knobs, jobs):
    monkeypatch.setattr(processes, "visible_gpus", lambda: [str(n) for n in range(gpus)])
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 6)
    assert Processes(**knobs).jobs == jobs


def test_more_runs_than_the_gpus_may_take_are_refused(monkeypatch, config):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["0", "1"])
    Processes(jobs=4, per_gpu=2).require_possible([config])
    Processes(jobs=40).require_possible([config])
    with pytest.raises(RequestError, match="5 runs at once on 2 GPUs"):
        Processes(jobs=5, per_gpu=2).require_possible([config])
    with pytest.raises(RequestError, match="for the CPU"):
        Processes(jobs=1, per_gpu=2).require_possible([on_cpu(config)])
    monkeypatch.setattr(processes, "visible_gpus", list)
    with pytest.raises(RequestError, match="torch sees none"):
        Processes(per_gpu=2).require_possible([config])


def test_a_run_stands_still_when_its_step_does_whatever_its_counter_says(tmp_path):
    seconds = itertools.count()
    (tmp_path / "run/attempts/1").mkdir(parents=True)
    attempt_dir = tmp_path / "run/attempts/1"
    watch = StandstillWatch(attempt_dir, 3.0, lambda: float(next(seconds)))
    looks = []
    for beat in ("1 5", "2 6", "3 6", "4 6", "5 6", "6 7", "6 7"):
        (attempt_dir / "beat").write_text(beat)
        looks.append(watch.stands_still)
    assert looks == [False, False, False, True, True, False, False]


TROUBLED = """
import time
import pytorch_lightning as pl
import torch
class Troubled(pl.Callback):
    def __init__(self, *, trouble: str = "0"):
        self.trouble = trouble
    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.trouble == "memory":
            torch.zeros(2**40)
        elif self.trouble == "hang":
            time.sleep(1e6)
        elif self.trouble == "diverge":
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))
"""


@pytest.mark.slow
def test_of_16_cells_three_fail_and_their_causes_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine/callbacks").mkdir(parents=True)
    (tmp_path / "troubled.py").write_text(TROUBLED)
    text = "defaults: [default]\nmine:\n  _target_: troubled.Troubled\n  trouble: ''\n"
    (tmp_path / "mine/callbacks/mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    runs_dir = tmp_path / "runs"
    cells = ",".join([*(f"none{n}" for n in range(13)), "memory", "hang", "diverge"])
    launcher = ["launcher=processes", "launcher.jobs=2", "launcher.memory_limit=8"]
    words = ["--config-dir", str(tmp_path / "mine"), "callbacks=mine", f"runs_dir={runs_dir}"]
    words += [*launcher, "launcher.hang_leases=40", "launcher.retries=1", "lease=0.3"]
    words += [f"callbacks.mine.trouble={cells}", "sweep=troubled", "seed=0"]
    assert main(["train", "-m", *TINY, *words]) == 1
    out = capsys.readouterr().out
    assert "16 runs: 13 finished" in out
    record_by_state = Counter(record.state for record in find_runs(runs_dir))
    assert record_by_state == {"finished": 13, "failed": 2, "killed": 1}
    assert len(SweepRecord(runs_dir, "troubled").cells) == 16
    attempts = {
        record.attempts[-1].summary.error.cause: len(record.attempts)
        for record in find_runs(runs_dir)
        if isinstance(record.attempts[-1].summary, FailedAttempt)
    }
    # What diverged would again, and is not tried; the others were, once.
    assert attempts == {"memory": 2, "diverged": 1}
    (hung,) = (record for record in find_runs(runs_dir) if record.state == "killed")
    assert len(hung.attempts) == 2
    named_causes = [line.split(":")[0] for line in out.strip().splitlines()[-4:-1]]
    assert sorted(named_causes) == [
        f"  failed ({cause})" for cause in ("diverged", "hung", "memory")
    ]
