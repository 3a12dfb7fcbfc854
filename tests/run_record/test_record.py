"""What a record says of a run: its state, its rows, and what to do with it."""

import json
import os
import platform
import re
import shutil
from collections.abc import Callable

import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.forms import seal
from attnlab.run_record.record import (
    Record,
    find_named_run,
    find_runs,
    generation_dir,
    plan_resume,
    wait_for_life,
)
from attnlab.run_record.result import RunResult
from tests import fabricated
from tests.depth import examples
from tests.prose import refuses, says
from tests.refused_calls import refused_calls
from tests.run_record.trainer import FINISHED, IDENTITY, KILLED


def attempt(run_dir, origin=None) -> Attempt:
    return Attempt.claim(run_dir, IDENTITY, origin)


def failed(run_dir, **error) -> None:
    attempt(run_dir).end(fabricated.failed(**error))


def finished(run_dir) -> None:
    assert attempt(run_dir).finish(fabricated.result())


def claim_becomes(run_dir, number=1, **changes) -> None:
    """Change what an attempt's claim says of its holder."""
    path = run_dir / f"attempts/{number}/claim.json"
    claim = {**Record(run_dir).attempts[number - 1].claim, **changes}
    path.write_bytes(write.json_bytes(seal(claim)))


def test_a_directory_without_anything_is_a_new_run(tmp_path):
    for directory in ("run", "run/attempts", "run/attempts/.tmp-1"):
        (tmp_path / directory).mkdir()
        record = Record(tmp_path / "run")
        assert (record.state, record.attempts, record.result) == ("new", [], None)
        assert record.rows("train").num_rows == 0
        assert plan_resume(record).action == "start"
        assert find_runs(tmp_path) == []
    with refuses(RecordError, "runs.no_config", tmp_path):
        _ = record.identity


def test_the_state_is_how_the_last_attempt_ended(tmp_path):
    run_dir = tmp_path / "run"
    record = Record(run_dir)
    failed(run_dir)
    assert (record.state, plan_resume(record).action) == ("failed", "resume")
    attempt(run_dir).end(fabricated.interrupted())
    assert (record.state, plan_resume(record).action) == ("interrupted", "resume")
    holder = attempt(run_dir)
    assert (record.state, plan_resume(record).action) == ("running", "held")
    says("runs.held", plan_resume(record).reason.replace(platform.node(), "HOST"), os.getpid())
    holder.finish(fabricated.result())
    assert (record.state, plan_resume(record).action) == ("finished", "skip")
    attempt(run_dir).end(fabricated.interrupted())
    assert record.state == "finished"
    assert [state.number for state in record.attempts] == [1, 2, 3, 4]


def test_a_holder_that_was_killed_is_gone_even_before_its_parent_asks(children, disk):
    pid = children.start(disk / "run", fault="file.write:kill:3")
    assert children.rests(pid) == psutil.STATUS_ZOMBIE
    assert Record(disk / "run").state == "killed"
    assert children.wait(pid) == KILLED
    assert (Record(disk / "run").state, plan_resume(Record(disk / "run")).action) == (
        "killed",
        "retry",
    )


def test_a_process_with_the_same_pid_that_began_at_another_time_is_not_the_holder(tmp_path):
    attempt(tmp_path / "run").close()
    assert Record(tmp_path / "run").state == "running"
    claim_becomes(tmp_path / "run", process_start=psutil.Process().create_time() - 60)
    assert Record(tmp_path / "run").state == "killed"


def test_on_another_host_nobody_can_tell_so_it_is_running(tmp_path):
    attempt(tmp_path / "run").close()
    claim_becomes(tmp_path / "run", host="elsewhere", pid=2**22 + 1)
    assert Record(tmp_path / "run").state == "running"


def test_an_attempt_that_finished_but_was_not_published_goes_on(children, disk):
    assert children.train(disk / "run", fault="publish.link:kill:1") == KILLED
    record = Record(disk / "run")
    assert isinstance(record.attempts[0].summary, RunResult)
    assert (record.state, record.result) == ("killed", None)
    assert children.train(disk / "run") == FINISHED
    assert record.result is not None
    assert record.result.attempt == 2


@pytest.mark.parametrize(
    ("name", "failures", "action"),
    [
        ("diverged", [{"cause": "diverged"}], "refuse"),
        ("memory", [{"cause": "memory"}] * 3, "resume"),
        ("disk", [{"cause": "disk"}] * 3, "resume"),
        ("once", [{}], "resume"),
        ("twice", [{}, {}], "refuse"),
        ("two_steps", [{"step": 1}, {"step": 2}], "resume"),
        ("two_messages", [{"message": "one"}, {"message": "other"}], "resume"),
        ("another_between", [{}, {"message": "other"}, {}], "resume"),
        ("twice_after_another", [{"message": "other"}, {}, {}], "refuse"),
    ],
)
def test_a_failure_is_retried_by_its_cause(tmp_path, name, failures, action):
    for failure in failures:
        failed(tmp_path / "run", **failure)
    decided = plan_resume(Record(tmp_path / "run"))
    assert decided.action == action
    says(f"runs.failed.{name}", decided.reason)


def test_an_interruption_between_two_equal_failures_does_not_hide_them(tmp_path):
    failed(tmp_path / "run")
    attempt(tmp_path / "run").end(fabricated.interrupted())
    failed(tmp_path / "run")
    assert plan_resume(Record(tmp_path / "run")).action == "refuse"


def died(run_dir, step: int, saved: bool = False, identity=IDENTITY) -> None:
    """Leave an attempt whose process is gone without a word, `saved` after its last checkpoint."""
    holder = Attempt.claim(run_dir, identity)
    holder.beat(step)
    if saved:
        holder.save(step, b"state")
    holder.close()
    claim_becomes(run_dir, holder.number, pid=2**22 + 1)


@pytest.mark.parametrize(
    ("name", "deaths", "action"),
    [
        ("twice", [(5, False)] * 2, "retry"),
        ("thrice", [(5, False)] * 3, "refuse"),
        ("other_steps", [(5, False), (4, False), (5, False)], "retry"),
        ("new_checkpoint", [(5, False), (5, True), (5, False)], "retry"),
        ("old_checkpoint", [(5, True), (5, False), (5, False)], "refuse"),
        ("further", [(4, False), *[(5, True)] * 3], "retry"),
    ],
)
def test_a_run_that_dies_three_times_at_one_step_is_given_up(tmp_path, name, deaths, action):
    for step, saved in deaths:
        died(tmp_path / "run", step, saved)
    decided = plan_resume(Record(tmp_path / "run"))
    assert decided.action == action
    says(f"runs.died.{name}", decided.reason)


def test_a_word_on_its_end_between_two_deaths_breaks_their_chain(tmp_path):
    died(tmp_path / "run", 5)
    died(tmp_path / "run", 5)
    attempt(tmp_path / "run").end(fabricated.interrupted(5))
    died(tmp_path / "run", 5)
    assert plan_resume(Record(tmp_path / "run")).action == "retry"


def test_a_holder_without_a_sign_of_life_counts_as_dead(tmp_path):
    died(tmp_path / "run", 0)
    died(tmp_path / "run", 0)
    holder = attempt(tmp_path / "run")
    holder.beat(0)
    record = Record(tmp_path / "run")
    assert plan_resume(record).action == "held"
    assert plan_resume(record, holder_is_gone=True).action == "refuse"
    holder.close()


class Time:
    """A clock that moves only while somebody sleeps, and lets something happen then."""

    def __init__(self, at: float, happens: Callable[[], object]) -> None:
        self.now, self.at, self.happens = 0.0, at, happens

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if self.now <= self.at < self.now + seconds:
            self.happens()
        self.now += seconds


@pytest.mark.parametrize(
    ("happens", "alive", "waited"),
    [
        (lambda run_dir, holder: holder.beat(2), True, 5),
        (lambda run_dir, holder: None, False, 30),
        (lambda run_dir, holder: holder.finish(fabricated.result()), False, 5),
        (lambda run_dir, holder: claim_becomes(run_dir, pid=2**22 + 1), False, 5),
        (lambda run_dir, holder: attempt(run_dir).beat(1), True, 5),
    ],
    ids=["beats", "stands still", "finishes", "vanishes", "another begins"],
)
def test_a_holder_lives_while_its_beat_moves_within_the_lease(tmp_path, happens, alive, waited):
    holder = attempt(tmp_path / "run")
    holder.beat(1)
    time = Time(5.0, lambda: happens(tmp_path / "run", holder))
    assert wait_for_life(Record(tmp_path / "run"), 30.0, time.sleep, time.clock) is alive
    assert time.now == pytest.approx(waited, abs=0.5)
    holder.close()


def test_a_beat_just_before_the_end_of_the_lease_is_seen(tmp_path):
    holder = attempt(tmp_path / "run")
    time = Time(0.95, lambda: holder.beat(1))
    assert wait_for_life(Record(tmp_path / "run"), 1.0, time.sleep, time.clock)
    holder.close()


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(-2, 9), st.integers(0, 4)), min_size=1, max_size=5),
            st.none() | st.integers(0, 4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_rows_are_those_that_the_last_attempt_had_behind_it(disk, histories):
    """Each attempt's memory is carried forward here; the record is read backward."""
    shutil.rmtree(disk)
    disk.mkdir()
    inherited: list[tuple[dict, list]] = []
    for generation, (history, winner) in enumerate(histories):
        run_dir = disk / f"run-{generation}"
        saved, known, memories, attempts = list(inherited), [], [], []
        for number, (choice, length) in enumerate(history, start=1):
            # A damaged checkpoint may send an attempt back to any earlier one, or to the start.
            origin, memory = saved[choice % len(saved)] if saved and choice >= 0 else (None, [])
            attempts.append(attempt(run_dir, origin))
            memory, first = list(memory), origin["step"] + 1 if origin else 1
            for step in range(first, first + length):
                row = {"step": step, "by": 100.0 * generation + number}
                attempts[-1].append("train", [row])
                memory.append(row)
                point = {"attempt": number, "step": step, "sha256": ""}
                saved.append((point, list(memory)))
                known.append(({**point, "run": run_dir.name}, list(memory)))
            memories.append(memory)
        if winner is not None:
            winner %= len(attempts)
            assert attempts[winner].finish(fabricated.result())
        for ended in attempts:
            ended.close()
        wanted = memories[-1 if winner is None else winner]
        assert Record(run_dir).rows("train").to_pylist() == wanted
        inherited = known


def test_a_torn_end_reads_as_the_batches_before_it(disk):
    holder = attempt(disk / "run")
    path = disk / "run/attempts/1/train.arrow"
    ends = [0]
    for step in (1, 2, 3):
        holder.append("train", [{"step": step, "loss": step / 2}, {"step": step, "loss": 0.0}])
        ends.append(path.stat().st_size)
    holder.close()
    content = path.read_bytes()
    rows = Record(disk / "run").rows("train").to_pylist()
    assert len(rows) == 6
    # Every end around a batch's own, and a part of the others.
    near = {full + by for full in ends for by in range(-9, 10)}
    for end in sorted({*range(0, len(content), 11), *(near & {*range(len(content) + 1)})}):
        path.write_bytes(content[:end])
        batches = sum(end >= full for full in ends) - 1
        assert Record(disk / "run").rows("train").to_pylist() == rows[: 2 * batches]


def test_a_column_that_an_earlier_attempt_did_not_have_is_null_there(tmp_path):
    for row, origin in [
        ({"step": 1, "loss": 1.0}, None),
        ({"step": 2, "lr": 0.5, "loss": 2.0}, {"attempt": 1, "step": 1, "sha256": ""}),
    ]:
        holder = attempt(tmp_path / "run", origin)
        holder.append("train", [row])
        holder.close()
    assert Record(tmp_path / "run").rows("train").to_pylist() == [
        {"step": 1, "loss": 1.0, "lr": None},
        {"step": 2, "loss": 2.0, "lr": 0.5},
    ]


def test_a_parent_that_is_gone_is_named(tmp_path):
    holder = attempt(tmp_path / "run", {"attempt": 1, "step": 1, "sha256": "", "run": "parent"})
    holder.close()
    with refuses(RecordError, "runs.parent_gone", tmp_path):
        Record(tmp_path / "run").rows("train")


DAMAGE = {
    "torn": b'{"schema": 1, "sta',
    "empty": b"",
    "no_text": b"\xff\xfe",
    "list": b"[1]",
    "without_schema": b'{"status": "finished"}',
    "newer": b'{"schema": 3}',
    "before_any": b'{"schema": 0}',
    "unsealed": json.dumps(
        {**fabricated.result().to_json(), "host": "h", "pid": 1, "process_start": 0.0, "at": ""}
        | {"resumed_from": None}
    ).encode(),
    "type": b'{"schema": 1, "host": 3, "status": ["failed"]}',
    "infinite": b'{"schema": 2, "host": "h", "pid": 1, "process_start": 1e999, "at": "",'
    b'"resumed_from": null, "seconds": 1e999}',
    "deep": b'{"schema": 1, "identity": ' + 41 * b'{"a":' + b"1" + 42 * b"}",
    "deepest": 100_000 * b"[",
}


@pytest.mark.parametrize("name", ["run.json", "attempts/1/claim.json", "attempts/1/run.json"])
def test_a_damaged_or_newer_file_is_named_with_what_to_do(tmp_path, name):
    attempt(tmp_path / "run").end(fabricated.interrupted())

    def read(content: bytes) -> None:
        (tmp_path / "run" / name).write_bytes(content)
        plan_resume(Record(tmp_path / "run"))

    for kind, content in DAMAGE.items():
        with pytest.raises(RecordError) as raised:
            read(content)
        # What is in brackets may be what a library says.
        message = re.sub(r"\((Expected|its status|.*\(char).*\)", "(...)", str(raised.value))
        says(f"runs.damaged.{kind}", message, tmp_path / "run" / name)


def test_a_damaged_config_is_named(tmp_path):
    attempt(tmp_path / "run").close()
    contents = {"torn": "a: [", "list": "- 1", "empty": "", "no_text": "\x00"}
    for kind, content in contents.items():
        (tmp_path / "run/config.yaml").write_text(content)
        with refuses(RecordError, f"runs.damaged_config.{kind}", tmp_path):
            _ = Record(tmp_path / "run").identity


def test_generations_of_a_run_stand_beside_each_other(tmp_path):
    first = generation_dir(tmp_path, "run", rerun=False)
    assert first == generation_dir(tmp_path, "run", rerun=True) == tmp_path / "run"
    finished(first)
    assert generation_dir(tmp_path, "run", rerun=False) == first
    second = generation_dir(tmp_path, "run", rerun=True)
    assert second == tmp_path / "run.2"
    holder = attempt(second)
    assert generation_dir(tmp_path, "run", rerun=True) == second
    assert generation_dir(tmp_path, "run", rerun=False) == second
    holder.end(fabricated.interrupted())
    assert generation_dir(tmp_path, "run", rerun=True) == second
    finished(second)
    assert generation_dir(tmp_path, "run", rerun=True) == tmp_path / "run.3"
    failed(tmp_path / "run.3", cause="diverged")
    assert generation_dir(tmp_path, "run", rerun=True) == tmp_path / "run.4"


def test_of_all_generations_only_the_newest_finished_counts(tmp_path):
    names = lambda **how: [r.name for r in find_runs(tmp_path, **how)]  # noqa: E731
    finished(tmp_path / "b")
    for generation in ("a", "a.2", "a.10"):
        failed(tmp_path / generation)
    assert names() == ["a.10", "b"]
    finished(tmp_path / "a")
    assert names() == ["a", "b"]
    finished(tmp_path / "a.2")
    assert names() == ["a.2", "b"]
    finished(tmp_path / "a.10")
    assert names() == ["a.10", "b"]
    assert names(all_generations=True) == ["a", "a.10", "a.2", "b"]


def test_what_is_no_run_is_not_found(tmp_path):
    finished(tmp_path / "a-s0.5-0123456789")
    (tmp_path / ".tmp-1").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [record.name for record in find_runs(tmp_path)] == ["a-s0.5-0123456789"]
    with refuses(RecordError, "runs.no_directory", tmp_path):
        find_runs(tmp_path / "nowhere")


def test_a_run_is_named_by_its_directory_or_the_beginning_of_its_name(tmp_path, monkeypatch):
    for name in ("apple-1", "apple-1.2", "apricot-2", "berry-3"):
        finished(tmp_path / name)
    assert find_named_run("b", tmp_path).name == "berry-3"
    assert find_named_run("apple-1", tmp_path).name == "apple-1"
    assert find_named_run(str(tmp_path / "apple-1.2"), tmp_path / "nowhere").name == "apple-1.2"
    monkeypatch.chdir(tmp_path / "berry-3")
    assert find_named_run(".", tmp_path).name == "berry-3"
    (tmp_path / "nothing").mkdir()
    refused_calls(
        "runs.resolve.{}",
        {
            "several": lambda: find_named_run("ap", tmp_path),
            "none": lambda: find_named_run("c", tmp_path),
            "no_run": lambda: find_named_run(str(tmp_path), tmp_path),
            "no_runs": lambda: find_named_run("c", tmp_path / "nothing"),
        },
        tmp_path,
        kind=RecordError,
    )
