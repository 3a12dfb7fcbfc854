"""Whatever happens to a run, the same command again ends as if nothing had."""

import os
import re
import resource
import shutil
import signal
import time

import psutil
import pytest
import torch

from attnlab.console import Console
from attnlab.interruption import Interrupted
from attnlab.launch import run
from attnlab.run_record.write import POINTS
from tests import child
from tests.choices import marked
from tests.prose import says

# How often the tiny run passes each point; a test below holds it.
PASSES = {
    "directory.make": 3,
    "file.open": 7,
    "file.write": 7,
    "file.sync": 7,
    "file.name": 6,
    "file.clear": 6,
    "birth.make": 1,
    "birth.name": 1,
    "stream.open": 7,
    "stream.write": 34,
    "stream.sync": 17,
    "beat.write": 1,
    "publish.link": 1,
    "remove": 1,
    "directory.sync": 18,
}
KILLED_FAST = ("stream.write", "publish.link")
FULL_FAST = ("stream.write",)
MOE = ("variant=moe", "seed=3", "model.num_layers=3")
KILLS = [(point, n) for point, most in PASSES.items() for n in range(1, most + 1)]


def equal(result, other) -> bool:
    (weights, rows), (others, other_rows) = result, other
    same = all(
        torch.equal(value, others[name])
        if isinstance(value, torch.Tensor)
        else value == others[name]
        for name, value in weights.items()
    )
    return same and weights.keys() == others.keys() and rows == other_rows


@pytest.fixture(scope="module")
def undisturbed_dir(tmp_path_factory):
    """The directory of a run that nobody disturbs."""
    runs_dir = tmp_path_factory.mktemp("undisturbed")
    assert child.train(runs_dir) == 0
    return runs_dir


@pytest.fixture(scope="module")
def undisturbed(undisturbed_dir):
    """What such a run gives."""
    return child.result(undisturbed_dir)


def test_the_tiny_run_logs_every_step_and_each_validation_in_order(undisturbed):
    weights, (train, validation, patterns, heads, vectors, evidence) = undisturbed
    assert weights["step"] == 9
    assert [row["step"] for row in train] == list(range(1, 10))
    assert [row["step"] for row in validation] == [4, 8, 9]
    assert list(dict.fromkeys(row["step"] for row in patterns)) == [0, 1, 2, 3, 6, 9]
    assert list(dict.fromkeys(row["step"] for row in heads)) == [0, 4, 8, 9]
    assert [row["step"] for row in vectors] == [0, 1, 2, 3, 6, 9]
    assert evidence == []
    assert set(train[0]) == {"step", "loss", "accuracy", "grad_norm", "lr"}


@pytest.mark.slow
def test_another_seed_gives_another_run(undisturbed, tmp_path):
    assert child.train(tmp_path, "seed=1") == 0
    assert not equal(child.result(tmp_path), undisturbed)


def kill_and_resume(tmp_path, undisturbed, fault: str, *overrides: str) -> None:
    code = child.train(tmp_path, *overrides, fault=fault)
    assert code == child.KILLED, f"{fault} was never reached"
    if list(tmp_path.glob("*/config.yaml")):
        record = child.only_record(tmp_path)
        assert record.state in ("new", "killed", "finished")
        record.rows("train")
    assert child.train(tmp_path, *overrides) == 0
    assert equal(child.result(tmp_path), undisturbed)
    assert child.only_record(tmp_path).state == "finished"


@pytest.mark.parametrize("point", [marked(point, KILLED_FAST) for point in POINTS])
def test_a_run_killed_at_the_last_passing_of_a_point_ends_bit_equal(tmp_path, undisturbed, point):
    kill_and_resume(tmp_path, undisturbed, f"{point}:kill:{PASSES[point]}")


@pytest.mark.soak
@pytest.mark.parametrize(("point", "n"), KILLS)
def test_a_run_killed_anywhere_ends_bit_equal(tmp_path, undisturbed, point, n):
    kill_and_resume(tmp_path, undisturbed, f"{point}:kill:{n}")


@pytest.mark.slow
def test_the_points_are_passed_as_often_as_the_tests_kill(tmp_path):
    for point, most in PASSES.items():
        if point == "beat.write":
            continue  # Once a second: as often as the machine is slow.
        fault = f"{point}:kill:{most + 1}"
        assert child.train(tmp_path / point, fault=fault) == 0, f"{point} is passed more often"


@pytest.fixture(scope="module")
def moe_dir(tmp_path_factory):
    """The directory of a run of another variant, depth and seed."""
    runs_dir = tmp_path_factory.mktemp("moe")
    assert child.train(runs_dir, *MOE) == 0
    return runs_dir


def test_a_result_says_what_was_run_and_by_which_code(moe_dir):
    result = child.finished(moe_dir)
    told = (result.variant, result.dataset, result.num_layers, result.seed)
    assert told == ("moe", "pronoun", 3, 3)
    assert result.identity == child.only_record(moe_dir).identity
    assert result.code.keys() >= {"attnlab.dataset.pronoun.Pronoun", "attnlab.ffn.moe.MoE"}
    assert result.versions["torch"] == torch.__version__


def test_who_stops_a_run_before_it_is_claimed_leaves_nothing(tmp_path, composed, monkeypatch):
    def stopped(_):
        raise Interrupted

    monkeypatch.setattr(run, "identify_attempt", stopped)
    with pytest.raises(Interrupted):
        run.run(composed(*child.TINY, f"runs_dir={tmp_path}"), Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_killed_twice_ends_bit_equal(tmp_path, undisturbed):
    assert child.train(tmp_path, fault="file.name:kill:3") == child.KILLED
    assert child.train(tmp_path, fault="file.name:kill:2") == child.KILLED
    assert child.train(tmp_path) == 0
    assert equal(child.result(tmp_path), undisturbed)
    assert len(child.only_record(tmp_path).attempts) == 3


def fail_and_go_on(tmp_path, undisturbed, fault: str) -> None:
    assert child.train(tmp_path, fault=fault) == 1
    assert child.train(tmp_path) == 0
    assert equal(child.result(tmp_path), undisturbed)


@pytest.mark.parametrize("point", [marked(point, FULL_FAST) for point in POINTS])
def test_a_full_disk_loses_nothing(tmp_path, undisturbed, point):
    fail_and_go_on(tmp_path, undisturbed, f"{point}:full:{PASSES[point]}")


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
def test_a_disk_that_does_not_sync_loses_nothing(tmp_path, undisturbed, point):
    """tests/run_record/test_attempt.py has this law for each point, of a run without a model."""
    fail_and_go_on(tmp_path, undisturbed, f"{point}:fsync:{PASSES[point]}")


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_real_full_disk_is_told_and_loses_nothing(tmp_path, undisturbed):
    assert child.train(tmp_path, prepare=limit_files) == 1
    says("launch.full_disk", child.outcome(tmp_path)["note"])
    assert child.only_record(tmp_path).state in ("failed", "killed")
    assert child.train(tmp_path) == 0
    assert equal(child.result(tmp_path), undisturbed)


def test_a_mixture_of_experts_resumes_bit_equal(tmp_path, moe_dir):
    kill_and_resume(tmp_path, child.result(moe_dir), "file.name:kill:3", *MOE)


@pytest.mark.slow
def test_a_run_that_measures_evidence_meanwhile_resumes_bit_equal(tmp_path, undisturbed):
    asked = "callbacks.cadence.evidence_every=2"
    assert child.train(tmp_path / "whole", asked) == 0
    assert child.train(tmp_path / "killed", asked, fault="stream.write:kill:40") == -signal.SIGKILL
    assert child.train(tmp_path / "killed", asked) == 0
    assert len(child.only_record(tmp_path / "killed").attempts) == 2
    whole = child.result(tmp_path / "whole")
    assert equal(child.result(tmp_path / "killed"), whole)
    weights, (*rows, evidence) = whole
    assert list(dict.fromkeys(row["step"] for row in evidence)) == [0, 2, 4, 6, 8, 9]
    undisturbed_weights, (*undisturbed_rows, _) = undisturbed
    assert equal((weights, rows), (undisturbed_weights, undisturbed_rows))


def test_an_lstm_resumes_bit_equal(tmp_path):
    assert child.train(tmp_path / "undisturbed", "variant=lstm") == 0
    undisturbed = child.result(tmp_path / "undisturbed")
    kill_and_resume(tmp_path / "killed", undisturbed, "file.name:kill:3", "variant=lstm")


LONG = (
    "trainer.max_steps=100",
    "callbacks.cadence.checkpoint_every=1000",
    "trainer.val_check_interval=100",
)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """What a longer run gives that nobody disturbs."""
    runs_dir = tmp_path_factory.mktemp("long")
    assert child.train(runs_dir, *LONG) == 0
    return child.result(runs_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_130_and_the_run_goes_on_from_there(tmp_path, long, number):
    first_began = time.perf_counter()
    process = child.start(tmp_path, *LONG)
    child.wait_for(lambda: beats(tmp_path))
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    record = child.only_record(tmp_path)
    assert record.state == "interrupted"
    step = child.weights(tmp_path)["step"]
    assert 0 < step < 100
    began = time.perf_counter()
    assert child.train(tmp_path, *LONG) == 0
    seconds_of_second = time.perf_counter() - began
    said = " ".join(child.outcome(tmp_path)["said"].split())
    assert said == f"{record.name}: resumed from step {step}"
    result = child.finished(tmp_path)
    assert result.seconds_before is not None
    assert 0 < result.seconds_before < began - first_began
    assert result.seconds_before < result.seconds < result.seconds_before + seconds_of_second
    assert result.has_seconds_of_all_steps
    assert record.attempts[1].claim["resumed_from"]["step"] == step
    assert equal(child.result(tmp_path), long)


def beats(runs_dir) -> bool:
    """Whether the first attempt of the only run has done a step."""
    beats = [path.read_text().split() for path in runs_dir.glob("*/attempts/1/beat")]
    return any(beat and int(beat[1]) > 0 for beat in beats)


def test_a_finished_run_is_skipped_and_a_repeated_one_kept_beside_it(
    tmp_path, undisturbed_dir, undisturbed
):
    runs_dir = tmp_path / "runs"
    shutil.copytree(undisturbed_dir, runs_dir)
    assert child.train(runs_dir) == 0
    outcome = child.outcome(runs_dir)
    assert (outcome["status"], outcome["said"]) == ("skipped", "")
    says("launch.skipped", outcome["note"])
    assert child.train(runs_dir, "rerun=true") == 0
    first, second = sorted(p.name for p in runs_dir.glob("pronoun*"))
    assert second == f"{first}.2"
    (counted,) = child.find_runs(runs_dir)
    assert counted.name == second
    assert counted.rows("train").to_pylist() == undisturbed[1][0]


def test_a_longer_run_extends_a_finished_one(tmp_path):
    assert child.train(tmp_path, "schedule=constant") == 0
    short = child.only_record(tmp_path)
    longer = ("schedule=constant", "trainer.max_steps=13", "extend=true")
    for name, content in (("damaged", "{"), ("other", '{"schema": 1, "status": "finished"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
        (tmp_path / name / "run.json").write_text(content)
    assert child.train(tmp_path, *longer) == 0
    said = " ".join(child.outcome(tmp_path)["said"].split())
    assert all(f"warning: {name} is passed over" in said for name in ("damaged", "other"))
    assert f"continues {short.name} from step 9" in said
    shutil.rmtree(tmp_path / "damaged")
    shutil.rmtree(tmp_path / "other")
    (long,) = (r for r in child.find_runs(tmp_path) if r.name != short.name)
    assert long.identity["parent"] == short.name
    straight = tmp_path / "straight"
    assert child.train(straight, "schedule=constant", "trainer.max_steps=13") == 0
    wanted = child.only_record(straight).rows("train").to_pylist()
    assert long.rows("train").to_pylist() == wanted
    assert long.result is not None
    assert 0 < (long.result.seconds_before or 0) < long.result.seconds


def test_a_run_whose_last_checkpoint_is_damaged_is_not_extended(tmp_path):
    assert child.train(tmp_path, "schedule=constant") == 0
    (newest,) = tmp_path.glob("*/attempts/1/checkpoints/step-000000009.ckpt")
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    longer = ("schedule=constant", "trainer.max_steps=13", "extend=true")
    assert child.train(tmp_path, *longer) == 1
    assert len(child.find_runs(tmp_path)) == 1


def test_a_run_without_a_shorter_one_cannot_extend(tmp_path):
    tmp_path.joinpath("runs").mkdir()
    assert child.train(tmp_path / "runs", "extend=true") == 1


@pytest.mark.parametrize(
    ("what", "more"), [("patterns", ()), ("loss", ("callbacks.recorder=null",))]
)
def test_what_is_no_number_fails_at_its_step_and_is_not_tried_again(tmp_path, what, more):
    wild = ("optimizer.lr=1e20", "optimizer.gradient_clip=null", "schedule.warmup_steps=0", *more)
    assert child.train(tmp_path, *wild) == 1
    record = child.only_record(tmp_path)
    error = child.error(record)
    assert record.state == "failed"
    assert error.cause == "diverged"
    message = re.sub(r"began at [\d.]+", "began at ...", error.message)
    says(f"launch.diverged.{what}", message, f"step {error.step}")
    assert child.train(tmp_path, *wild) == 1
    assert child.outcome(tmp_path)["status"] == "refused"
    assert len(record.attempts) == 1


def test_a_diverging_run_keeps_its_last_good_checkpoint(tmp_path):
    grows = ("trainer.max_steps=60", "optimizer.lr=30", "optimizer.gradient_clip=null")
    slow = ("schedule.warmup_steps=59", "callbacks.cadence.checkpoint_every=1")
    assert child.train(tmp_path, *grows, *slow) == 1
    record = child.only_record(tmp_path)
    step = child.error(record).step
    assert 1 < child.weights(tmp_path)["step"] < step
    weights = child.weights(tmp_path)
    assert all(w.isfinite().all() for n, w in weights.items() if n != "step")


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, undisturbed):
    """tests/run_record/test_checkpoint.py has each kind of damage."""
    assert child.train(tmp_path, fault="publish.link:kill:1") == child.KILLED
    (newest,) = tmp_path.glob("*/attempts/1/checkpoints/step-000000009.ckpt")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert child.train(tmp_path) == 0
    assert str(newest) in "".join(child.outcome(tmp_path)["said"].split())
    record = child.only_record(tmp_path)
    assert record.attempts[1].claim["resumed_from"]["step"] == 6
    assert child.result(tmp_path)[1] == undisturbed[1]


def test_a_paused_holder_that_wakes_harms_nothing(tmp_path, undisturbed):
    sleeper = child.start(tmp_path, fault="file.name:stop:4")
    child.wait_for(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    assert child.train(tmp_path, lease=0.5) == 0
    published = next(tmp_path.glob("*/run.json")).read_bytes()
    assert child.finished(tmp_path).attempt == 2
    os.kill(sleeper.pid, signal.SIGCONT)
    sleeper.join(60)
    assert sleeper.exitcode == 0
    assert next(tmp_path.glob("*/run.json")).read_bytes() == published
    assert equal(child.result(tmp_path), undisturbed)


def test_a_run_that_somebody_trains_is_left_to_them(tmp_path):
    long = ("trainer.max_steps=100000", "trainer.val_check_interval=100000")
    holder = child.start(tmp_path, *long)
    child.wait_for(lambda: beats(tmp_path))
    assert child.train(tmp_path, *long, lease=10.0) == 1
    assert child.outcome(tmp_path)["status"] == "held"
    assert len(child.only_record(tmp_path).attempts) == 1
    holder.kill()
    holder.join()


STOP = (
    "callbacks=early_stop",
    "callbacks.early_stop.metric=accuracy",
    "callbacks.early_stop.threshold=0.0",
    "callbacks.cadence.log_every=1",
    "callbacks.cadence.checkpoint_every=3",
)


def test_early_stopping_ends_a_run(tmp_path):
    assert child.train(tmp_path, *STOP) == 0
    result = child.finished(tmp_path)
    assert result.steps == 4
    assert result.stopped_early
    assert result.budget_tokens * 4 == result.tokens * 9


@pytest.mark.slow
def test_a_run_that_stops_early_stops_there_when_it_is_resumed(tmp_path):
    assert child.train(tmp_path / "undisturbed", *STOP) == 0
    undisturbed = child.result(tmp_path / "undisturbed")
    kill_and_resume(tmp_path / "killed", undisturbed, "publish.link:kill:1", *STOP)
    assert child.finished(tmp_path / "killed").steps == 4
