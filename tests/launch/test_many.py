"""Of many runs none ends the others, whatever becomes of it."""

import itertools
import math
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from attnlab.callbacks.training_callback import beat_on_forward
from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.console import Console
from attnlab.errors import RecordError
from attnlab.interruption import Interrupted
from attnlab.launch import many, run
from attnlab.launch.inline import Inline
from attnlab.launch.measure_result import FinalNumbers
from attnlab.launch.outcome import Outcome
from attnlab.run_record import attempt
from attnlab.run_record.checkpoint import last_checkpoint
from attnlab.run_record.record import DEATHS, find_runs
from attnlab.run_record.result import InterruptedAttempt
from tests import child
from tests.child import TINY, only_record, wait_for
from tests.prose import says
from tests.run_record.test_record import died

QUIET = Console(quiet=True)


def planned(tmp_path, monkeypatch, outcomes, launcher=None):
    """Let runs end as is said: by seed, a list of what comes of each try."""
    tried = []

    def run_as_stated(config, console, postpones, notes, cell):
        seed = config.values["seed"]
        tried.append((seed, postpones))
        outcome = outcomes[seed].pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        status, _, cause = outcome.partition(": ")
        return Outcome(tmp_path / str(seed), status, note="it did", cause=cause or None)

    monkeypatch.setattr(run, "run", run_as_stated)
    with search_path() as own:
        config = compose([*TINY, f"runs_dir={tmp_path}"], own)
    configs = [replace(config, values={**config.values, "seed": s}) for s in outcomes]
    return tried, many.run_many(configs, QUIET, launcher or Inline())


def test_whatever_fails_in_a_run_the_others_are_done(tmp_path, monkeypatch):
    outcomes = {
        0: [RuntimeError("a part of the user's own")],
        1: [RecordError("the record is damaged")],
        2: [SystemExit(3)],
        3: ["finished"],
    }
    tried, ended = planned(tmp_path, monkeypatch, outcomes)
    by_place = dict(ended)
    assert [by_place[place].status for place in range(4)] == [
        *("failed", "blocked", "failed", "finished")
    ]
    says("launch.many.failed", by_place[0].note)
    says("launch.many.blocked", by_place[1].note)
    assert tried == [(seed, True) for seed in range(4)]


def test_what_others_hold_and_what_has_died_is_asked_again_at_the_end(tmp_path, monkeypatch):
    outcomes = {
        0: ["held", "skipped"],
        1: ["dead", "finished"],
        2: ["finished"],
        3: ["held", "held"],
    }
    tried, ended = planned(tmp_path, monkeypatch, outcomes)
    assert [(place, outcome.status) for place, outcome in ended] == [
        *[(2, "finished"), (0, "skipped"), (1, "finished"), (3, "held")]
    ]
    assert tried == [*[(s, True) for s in range(4)], *[(s, False) for s in (0, 1, 3)]]


@pytest.mark.parametrize(
    ("ends", "statuses", "note"),
    [
        (["failed: killed", "finished"], "finished", "it did"),
        (["failed: killed", "failed: hung", "failed: killed"], "failed", "it did (3 times)"),
        (["failed: diverged"], "failed", "it did"),
        (["failed: error"], "failed", "it did"),
        (["dead", "failed: memory", "failed: memory", "finished"], "finished", "it did"),
    ],
    ids=["once", "each_time", "diverged", "error", "died_before"],
)
def test_what_fails_is_tried_again_by_its_cause_as_often_as_stated(
    tmp_path, monkeypatch, ends, statuses, note
):
    tried, ended = planned(tmp_path, monkeypatch, {0: list(ends), 1: ["finished"]})
    by_place = dict(ended)
    assert (by_place[0].status, by_place[0].note) == (statuses, note)
    assert by_place[1].status == "finished"
    assert [seed for seed, _ in tried] == [0, 1, *[0] * (len(ends) - 1)]
    assert [postpones for _, postpones in tried] == [True] * 2 + [False] * (len(ends) - 1)


def test_a_launcher_states_how_often_and_after_what(tmp_path, monkeypatch):
    launcher = Inline(retries=1, retry_on=["error"])
    ends = {0: ["failed: error", "failed: error"], 1: ["failed: killed"]}
    tried, ended = planned(tmp_path, monkeypatch, ends, launcher)
    assert {place: outcome.status for place, outcome in ended} == {0: "failed", 1: "failed"}
    assert [seed for seed, _ in tried] == [0, 1, 0]


def test_an_interruption_ends_all(tmp_path, monkeypatch):
    tried, ended = planned(tmp_path, monkeypatch, {0: [Interrupted(3)], 1: ["finished"]})
    with pytest.raises(Interrupted):
        list(ended)
    assert tried == [(0, True)]


def with_more(final: FinalNumbers, more: dict[str, float]) -> FinalNumbers:
    """Return what a run measured at its end, with more metrics."""
    return final._replace(metrics={**final.metrics, **more})


def train(runs_dir: Path, *words: str) -> int:
    return main(["train", *TINY, f"runs_dir={runs_dir}", *words])


def test_a_run_that_died_comes_last_and_is_given_up_at_its_third_death(tmp_path, capsys):
    assert train(tmp_path) == 0
    (done,) = find_runs(tmp_path)
    other = tmp_path / "other"
    for _ in range(DEATHS):
        died(other / done.name, 4, identity=done.identity)
    assert train(other, "-m", "seed=0,1") == 1
    *_, counted, named, advice = capsys.readouterr().out.strip().splitlines()
    says("launch.advice", advice)
    says("launch.given_up.counts", counted)
    says("launch.given_up", named.partition(": ")[2].partition(": ")[2])
    assert [len(record.attempts) for record in find_runs(other)] == [3, 1]
    assert train(other, "retry=true") == 0
    assert [record.state for record in find_runs(other)] == ["finished"] * 2


DIES = """
import os, signal
from attnlab.init.base import Init
class Dies(Init):
    def __call__(self, model):
        if not next(model.parameters()).is_meta:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def dying(tmp_path, monkeypatch) -> list[str]:
    """The words for a choice that kills the process in which a model is made."""
    (tmp_path / "mine/init").mkdir(parents=True)
    (tmp_path / "deadly.py").write_text(DIES)
    (tmp_path / "mine/init/deadly.yaml").write_text("_target_: deadly.Dies\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ["--config-dir", "mine"]


def in_a_process(*words: str, **options) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-m", "attnlab.cli", "train", *TINY, *words], **(pipes | options)
    )


LONG = ("trainer.max_steps=100000", "trainer.val_check_interval=100000")
LONG_RUNS = (*LONG, "callbacks.cadence.checkpoint_every=100000")


def trains(runs_dir: Path, count: int) -> bool:
    beats = [path.read_text().split() for path in runs_dir.glob("*/attempts/1/beat")]
    return len(beats) == count and all(beat and int(beat[1]) > 0 for beat in beats)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["ctrl-c", "sigterm"],
)
def test_an_interruption_saves_what_runs_and_says_how_to_go_on(tmp_path, number, whole_group):
    words = [*LONG_RUNS, f"runs_dir={tmp_path}", "-m", "-j", "2", "seed=0,1,2"]
    process = in_a_process(*words, start_new_session=True)
    try:
        wait_for(lambda: trains(tmp_path, 2), 240)
        workers = psutil.Process(process.pid).children(recursive=True)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    says("launch.interrupted", out.splitlines()[-1])
    assert [record.state for record in find_runs(tmp_path)] == ["interrupted"] * 2
    assert len(list(tmp_path.glob("*/attempts/1/checkpoints/*.ckpt"))) == 2
    assert not psutil.wait_procs(workers, timeout=10)[1]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.5, 4.0, 6.5, 9.0])
def test_ctrl_c_while_workers_start_is_an_interruption(tmp_path, seconds):
    words = [*LONG_RUNS, f"runs_dir={tmp_path}", "-m", "-j", "2", "seed=0,1"]
    process = in_a_process(*words, start_new_session=True)
    try:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    # Before training is imported there is nothing to go on with.
    assert process.returncode == 130, err
    if err != "interrupted\n":
        assert err == ""
        says("launch.interrupted", out.splitlines()[-1])


OWN = """
import sys
import pytorch_lightning as pl
class Exits(pl.Callback):
    def on_train_batch_end(self, *_):
        sys.exit(3)
class Stops(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 5
class Prints(pl.Callback):
    def on_train_batch_end(self, *_):
        print("x" * 1000, flush=True)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Give the words that choose a callback of these."""
    (tmp_path / "mine/callbacks").mkdir(parents=True)
    (tmp_path / "own_callbacks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def chosen(name: str) -> list[str]:
        text = f"defaults: [default]\nmine:\n  _target_: own_callbacks.{name}\n"
        (tmp_path / "mine/callbacks/mine.yaml").write_text(text)
        return ["--config-dir", str(tmp_path / "mine"), "callbacks=mine"]

    return chosen


def test_a_part_that_ends_the_program_fails_its_run_alone(tmp_path, own, capsys):
    assert train(tmp_path / "runs", *own("Exits"), "-m", "seed=0,1") == 1
    says("launch.exits", capsys.readouterr().out.splitlines()[-2].rpartition(": ")[2])
    assert [record.state for record in find_runs(tmp_path / "runs")] == ["failed"] * 2


def test_a_run_that_a_callback_ends_is_saved_and_measured_there(tmp_path, own):
    assert train(tmp_path / "runs", *own("Stops")) == 0
    record = only_record(tmp_path / "runs")
    result = child.finished(tmp_path / "runs")
    assert (result.steps, result.stopped_early) == (5, True)
    assert record.rows("validation")["step"].to_pylist()[-1] == 5
    assert last_checkpoint(record)[0].step == 5


@pytest.mark.slow
def test_workers_go_on_when_their_reader_leaves(tmp_path, own):
    runs_dir = tmp_path / "runs"
    words = [*TINY, *own("Prints"), f"runs_dir={runs_dir}", "-m", "-j", "2", "seed=0,1"]
    command = f"{sys.executable} -m attnlab.cli train {shlex.join(words)} | true"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""
    assert [record.state for record in find_runs(runs_dir)] == ["finished"] * 2


@pytest.mark.slow
def test_a_terminal_that_closes_saves_the_run(tmp_path):
    words = [*TINY, *LONG_RUNS, f"runs_dir={tmp_path}"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "attnlab.cli", "train", *words])
    try:
        wait_for(lambda: trains(tmp_path, 1), 120)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert only_record(tmp_path).state == "interrupted"
    assert list(tmp_path.glob("*/attempts/1/checkpoints/*.ckpt"))


@pytest.mark.slow
def test_the_workers_of_a_killed_parent_save_and_end(tmp_path):
    process = in_a_process(*LONG_RUNS, f"runs_dir={tmp_path}", "-m", "-j", "2", "seed=0,1")
    try:
        wait_for(lambda: trains(tmp_path, 2), 240)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert not psutil.wait_procs(workers, timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert [record.state for record in find_runs(tmp_path)] == ["interrupted"] * 2


@pytest.mark.slow
def test_a_process_that_dies_is_tried_again_and_the_others_are_done(tmp_path, dying):
    runs_dir = tmp_path / "runs"
    words = [*dying, f"runs_dir={runs_dir}", "-m", "-j", "2", "init=deadly,default"]
    process = in_a_process(*words, cwd=tmp_path)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (1, "")
    states = Counter(record.state for record in find_runs(runs_dir))
    assert states == {"killed": 1, "finished": 1}
    (killed,) = (r for r in find_runs(runs_dir) if r.state == "killed")
    assert len(killed.attempts) == DEATHS
    says("launch.died", out.splitlines()[-2].rpartition(": ")[2])


@pytest.mark.parametrize("phase", ["measure_trained", "flops_per_token"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_and_after_training_is_an_interruption(
    tmp_path, monkeypatch, capsys, phase, number
):
    """While training, tests/launch/test_resume.py."""
    whole = getattr(run, phase)

    def signalled(*arguments):
        os.kill(os.getpid(), number)
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, phase, signalled)
        assert train(tmp_path) == 130
    says("launch.interrupted.one", capsys.readouterr().out.splitlines()[-1])
    record = only_record(tmp_path)
    assert record.state == "interrupted"
    step = 9 if phase == "measure_trained" else 0
    assert isinstance(summary := record.attempts[0].summary, InterruptedAttempt)
    assert summary.step == step
    assert train(tmp_path) == 0
    assert len(record.attempts) == 2


def test_a_run_does_not_change_which_run_comes_next_in_its_process(tmp_path):
    """As in a notebook: threads and precision of one run are not those of the next."""
    words = tuple(word for word in TINY if not word.startswith("trainer.threads="))
    for more in ((), ("trainer.threads=1", "trainer.matmul_precision=medium"), ()):
        assert main(["train", *words, *more, f"runs_dir={tmp_path}"]) == 0
    assert len(find_runs(tmp_path)) == 2


def test_final_evaluation_and_evidence_beat_while_they_compute(tmp_path, monkeypatch):
    """And what stands still does not."""
    beats = []
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with beat_on_forward(lambda: beats.append(1)):
        assert not beats
        layer(torch.zeros(1, 2))
        assert len(beats) == 3
    layer(torch.zeros(1, 2))
    assert len(beats) == 3

    counts = []
    whole = run.measure_trained

    def measure(experiment):
        # Every look at the clock is a second later.
        clock = itertools.count(1e9)
        monkeypatch.setattr(attempt, "monotonic", lambda: next(clock))
        before = only_record(tmp_path).attempts[0].beat[0]
        found = whole(experiment)
        counts.append(only_record(tmp_path).attempts[0].beat[0] - before)
        return found

    monkeypatch.setattr(run, "measure_trained", measure)
    assert train(tmp_path) == 0
    # Of two splits and the evidence, every layer of every pass.
    assert counts[0] > 30


def test_a_measure_that_is_no_number_is_left_out_and_the_run_is_kept(tmp_path, monkeypatch, capsys):
    whole = run.measure_trained
    for name, value in (("pronoun/odd", math.nan), ("pronoun/large", math.inf)):
        with monkeypatch.context() as patched:
            patched.setattr(
                run, "measure_trained", lambda *a, more={name: value}: with_more(whole(*a), more)
            )
            assert train(tmp_path / name) == 0
        says(f"launch.no_number.{name[8:]}", capsys.readouterr().out.splitlines()[0])
        assert name not in child.finished(tmp_path / name).metrics


def test_a_main_metric_that_is_no_number_fails_the_run(tmp_path, monkeypatch, capsys):
    whole = run.measure_trained
    nan = {"test/accuracy": math.nan}
    monkeypatch.setattr(run, "measure_trained", lambda *a: with_more(whole(*a), nan))
    assert train(tmp_path) == 1
    says("launch.no_number.headline", capsys.readouterr().out.splitlines()[0])
