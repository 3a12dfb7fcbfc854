"""Whatever happens to an attempt, the next one ends as if nothing had."""

import errno
import json
import os
import signal
from uuid import uuid4

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.attempt import AlreadyClaimed, Attempt
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.record import Record, find_runs
from tests.depth import examples
from tests.fabricated import failed, interrupted, result
from tests.prose import refuses
from tests.run_record.conftest import as_read
from tests.run_record.trainer import FAILED, FINISHED, IDENTITY, KILLED, LOST, TAKEN


def test_the_undisturbed_run_has_each_row_once_and_in_order(undisturbed):
    assert [row["step"] for row in undisturbed["train"]] == list(range(1, 10))
    assert [row["step"] for row in undisturbed["validation"]] == [4, 8]
    assert len({row["loss"] for row in undisturbed["train"]}) == 9


def can_be_read(run_dir, undisturbed) -> None:
    record = Record(run_dir)
    assert record.state in ("new", "killed", "failed", "finished")
    for table in ("train", "validation"):
        rows = record.rows(table).to_pylist()
        assert rows == undisturbed[table][: len(rows)]
    assert newest_checkpoint(run_dir)[1] == []
    if run_dir.parent.is_dir():
        assert len(find_runs(run_dir.parent)) == (run_dir / "config.yaml").exists()


def fail_and_go_on(children, undisturbed, run_dir, fault: str) -> None:
    kind = fault.split(":")[1]
    assert children.train(run_dir, fault=fault) == (KILLED if kind == "kill" else FAILED), fault
    can_be_read(run_dir, undisturbed)
    assert children.train(run_dir) == FINISHED, fault
    assert as_read(run_dir) == undisturbed, fault


def test_every_point_is_passed(passings):
    assert passings.keys() == set(write.POINTS)


@pytest.mark.parametrize("kind", ["kill", "full", "fsync"])
def test_a_run_that_fails_at_the_last_passing_of_a_point_can_be_read_and_ends_whole(
    children, undisturbed, disk, passings, kind
):
    for point, last in passings.items():
        fail_and_go_on(children, undisturbed, disk / point / "run", f"{point}:{kind}:{last}")


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["kill", "full", "fsync"])
@pytest.mark.parametrize("point", write.POINTS)
def test_a_run_that_fails_at_any_passing_of_a_point_can_be_read_and_ends_whole(
    children, undisturbed, disk, passings, point, kind
):
    for n in range(1, passings[point] + 1):
        fail_and_go_on(children, undisturbed, disk / str(n) / "run", f"{point}:{kind}:{n}")
    fault = f"{point}:{kind}:{passings[point] + 1}"
    assert children.train(disk / "last" / "run", fault=fault) == FINISHED


@pytest.mark.parametrize("largest", [0, 30, 300, 700, 1000, 1500])
def test_a_file_that_cannot_grow_tears_and_loses_nothing(children, undisturbed, disk, largest):
    run_dir = disk / "run"
    assert children.train(run_dir, largest=largest) == FAILED
    can_be_read(run_dir, undisturbed)
    assert children.train(run_dir) == FINISHED
    assert as_read(run_dir) == undisturbed


@examples(8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(write.POINTS),
            st.sampled_from(["kill", "full", "fsync"]),
            st.integers(1, 8),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_a_run_that_fails_again_and_again_ends_whole(children, undisturbed, disk, faults):
    run_dir = disk / uuid4().hex / "run"
    for point, kind, n in faults:
        children.train(run_dir, fault=f"{point}:{kind}:{n}")
        can_be_read(run_dir, undisturbed)
    assert children.train(run_dir) == FINISHED
    assert as_read(run_dir) == undisturbed


def pause_and_wake(children, undisturbed, run_dir, fault: str) -> None:
    pid = children.pause(run_dir, fault)
    assert pid is not None, f"{fault} is never reached"
    assert children.train(run_dir) == FINISHED, fault
    published = (run_dir / "run.json").read_bytes()
    os.kill(pid, signal.SIGCONT)
    assert children.wait(pid) in (LOST, TAKEN), fault
    assert (run_dir / "run.json").read_bytes() == published, fault
    assert as_read(run_dir) == undisturbed, fault
    assert newest_checkpoint(run_dir)[1] == [], fault


@pytest.mark.parametrize("n", [1, 3])
def test_a_paused_holder_that_wakes_harms_nothing(children, undisturbed, disk, passings, n):
    for point, last in passings.items():
        if n <= last:
            pause_and_wake(children, undisturbed, disk / point / "run", f"{point}:stop:{n}")


def test_of_processes_that_claim_at_once_exactly_one_gets_each_attempt(children, disk):
    run_dir = disk / "run"
    pids = [children.start(run_dir, wins=6) for _ in range(6)]
    assert [children.wait(pid) for pid in pids] == [FINISHED] * 6
    won = {pid: json.loads((disk / f"won-{pid}.json").read_text()) for pid in pids}
    assert sorted(n for numbers in won.values() for n in numbers) == list(range(1, 37))
    for attempt in Record(run_dir).attempts:
        assert attempt.number in won[attempt.claim["pid"]]
    left = [p for p in (run_dir / "attempts").iterdir() if p.name.startswith(write.TEMPORARY)]
    assert left == []


def test_a_claim_says_who_holds_it_and_where_it_began(tmp_path):
    origin = {"attempt": 1, "step": 4, "sha256": "ab"}
    Attempt.claim(tmp_path / "run", IDENTITY).close()
    attempt = Attempt.claim(tmp_path / "run", IDENTITY, origin)
    attempt.close()
    assert attempt.number == 2
    first, second = Record(tmp_path / "run").attempts
    assert first.claim["resumed_from"] is None
    assert second.claim["resumed_from"] == origin
    assert second.claim["pid"] == os.getpid()
    assert second.holder_exists


def test_who_decided_before_another_attempt_began_does_not_get_the_next(tmp_path):
    Attempt.claim(tmp_path / "run", IDENTITY, last_known_attempt=0).close()
    with refuses(AlreadyClaimed, "runs.already_claimed", tmp_path):
        Attempt.claim(tmp_path / "run", IDENTITY, last_known_attempt=0)
    Attempt.claim(tmp_path / "run", IDENTITY, last_known_attempt=1).close()
    assert len(Record(tmp_path / "run").attempts) == 2


def test_a_directory_of_another_run_is_refused(tmp_path):
    Attempt.claim(tmp_path / "run", {"seed": 0}).close()
    with refuses(RecordError, "runs.another_run", tmp_path):
        Attempt.claim(tmp_path / "run", {"seed": 1})
    assert Record(tmp_path / "run").identity == {"seed": 0}
    (tmp_path / "run/config.yaml").write_text("seed: [")
    with refuses(RecordError, "runs.damaged_config", tmp_path):
        Attempt.claim(tmp_path / "run", {"seed": 0})


def test_the_first_row_decides_the_columns_of_a_table(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    attempt.append("train", [{"loss": 1.0, "step": 1, "lr": 0.5}, {"step": 2, "lr": 1, "loss": 2}])
    with refuses(ValueError, "runs.other_columns"):
        attempt.append("train", [{"step": 3, "loss": 1.0}])
    with refuses(ValueError, "runs.no_step"):
        attempt.append("other", [{"loss": 1.0}])
    attempt.append("validation", [])
    attempt.close()
    table = Record(tmp_path / "run").rows("train")
    assert table.to_pylist() == [
        {"step": 1, "loss": 1.0, "lr": 0.5},
        {"step": 2, "loss": 2.0, "lr": 1.0},
    ]
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "double"]
    assert Record(tmp_path / "run").rows("validation").num_rows == 0


def test_a_checkpoint_is_written_after_the_rows_and_the_oldest_deleted_last(tmp_path, monkeypatch):
    passed: list[str] = []
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    for step in (1, 2, 3):
        attempt.append("train", [{"step": step}])
        attempt.append("validation", [{"step": step}])
        passed.clear()
        monkeypatch.setattr(write, "strike_fault", passed.append)
        attempt.save(step, b"state")
    attempt.close()
    assert passed[:3] == ["stream.sync", "stream.sync", "file.open"]
    assert passed[-3:] == ["stream.write", "stream.sync", "remove"]
    names = sorted(p.name for p in (attempt.path / "checkpoints").glob("*.ckpt"))
    assert names == ["step-000000002.ckpt", "step-000000003.ckpt"]


def test_rows_asked_to_be_durable_are_synced_at_once(tmp_path, monkeypatch):
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    attempt.append("train", [{"step": 1}])
    passed: list[str] = []
    monkeypatch.setattr(write, "strike_fault", passed.append)
    attempt.append("train", [{"step": 2}], durable=True)
    attempt.sync()
    attempt.close()
    assert passed == ["stream.write", "stream.sync"]


def test_a_beat_is_written_at_each_step_and_once_a_second_within_one(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("attnlab.run_record.attempt.monotonic", lambda: now)
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    beats = lambda: Record(tmp_path / "run").attempts[0].beat  # noqa: E731
    assert beats() == (0, 0)
    attempt.beat(1)
    now = 100.9
    attempt.beat(1)
    assert beats() == (1, 1)
    attempt.beat(2)
    assert beats() == (2, 2)
    now = 102.0
    attempt.beat(2)
    assert beats() == (3, 2)
    attempt.close()


def test_only_the_first_to_finish_is_published(tmp_path):
    first = Attempt.claim(tmp_path / "run", IDENTITY)
    second = Attempt.claim(tmp_path / "run", IDENTITY)
    assert second.finish(result(seconds=2.0))
    assert not first.finish(result(seconds=1.0))
    record = Record(tmp_path / "run")
    assert record.result == result(seconds=2.0, attempt=2)
    assert [attempt.summary for attempt in record.attempts] == [
        result(seconds=1.0, attempt=1),
        result(seconds=2.0, attempt=2),
    ]


def test_nothing_but_the_log_is_written_after_the_end(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    attempt.append("train", [{"step": 1}])
    attempt.end(interrupted(1))
    with refuses(OSError, "runs.stream_ended", tmp_path):
        attempt.append("train", [{"step": 2}])
    with pytest.raises(OSError) as raised:  # noqa: PT011
        attempt.beat(2)
    assert raised.value.errno == errno.EBADF
    attempt.log("why")
    try:
        raise KeyError("lost")
    except KeyError as error:
        attempt.log_exception(error)
    assert (attempt.path / "run.log").read_text().startswith("why\nTraceback")
    assert "KeyError: 'lost'" in (attempt.path / "run.log").read_text()
    assert Record(tmp_path / "run").state == "interrupted"


def test_an_ended_attempt_holds_no_file_open(tmp_path):
    before = psutil.Process().num_fds()
    for summary in (failed(), interrupted()):
        attempt = Attempt.claim(tmp_path / "run", IDENTITY)
        attempt.append("train", [{"step": 1}])
        attempt.save(1, b"state")
        attempt.log("a line")
        attempt.end(summary)
    assert psutil.Process().num_fds() == before


def test_a_summary_that_is_no_json_is_refused_and_can_be_corrected(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    with pytest.raises(ValueError, match="JSON"):  # The words are the library's.
        attempt.finish(result(metrics={"mean": float("nan")}))
    assert attempt.finish(result(metrics={"mean": np.float64(0.25)}))
    assert Record(tmp_path / "run").result == result(metrics={"mean": 0.25})


def test_a_result_that_could_not_be_read_again_is_not_published(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    with refuses(RecordError, "runs.attempt.unreadable", tmp_path):
        attempt.finish(result(metrics={"own/two\nlines": 0.5}))
    assert not list(tmp_path.rglob("run.json"))
