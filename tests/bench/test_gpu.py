"""`make gpu-check` measures what is lacking, within its time, and keeps what it found."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnlab.run_record import write
from bench.gpu import __main__ as program
from bench.gpu import results, runner, table
from bench.gpu.part import Found, Given, Part
from bench.gpu.parts import PARTS
from bench.gpu.runner import Asked
from tests.prose import says

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def part(name: str, seconds: float = 10.0, **changes: Any) -> Part:
    """A part that says how large it was."""
    made = Part(name, name, seconds, {"size": 9}, {"size": 1}, lambda given: found(given))
    return replace(made, **changes)


def found(given: Given) -> Found:
    return Found([{"size": given.settings["size"], "TFLOP/s": 2.0}], ["a note"])


class Place:
    """Where fake parts are measured: each takes its seconds of a clock that stands otherwise."""

    def __init__(self, out: Path) -> None:
        self.out, self.now = out, 0.0
        self.lines: list[str] = []
        self.begun: list[str] = []
        self.ends: dict[str, runner.Ended] = {}

    def start(self, part: Part, seconds: float) -> runner.Ended:
        self.begun.append(part.name)
        self.now += part.seconds
        ended = self.ends.get(part.name, "done")
        if ended == "done":
            given = part.given(CPU, None)
            results.write(self.out, part, given, part.measure(given), part.seconds)
        return ended

    def measure(self, parts: list[Part], seconds: float = 1000.0, again: bool = False) -> int:
        self.begun, self.lines = [], []
        asked = Asked(CPU, self.out, seconds, again)
        return runner.measure(parts, asked, self.start, lambda: self.now, self.lines.append)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "gpu")


def test_what_is_there_is_not_measured_again_unless_somebody_says_so(place):
    parts = [part("a"), part("b")]
    assert place.measure(parts[:1]) == 0
    assert place.measure(parts) == 0
    assert place.begun == ["b"]
    assert place.measure(parts) == 0
    assert place.begun == []
    says("bench.is_there", "\n".join(place.lines))
    place.measure(parts, again=True)
    assert place.begun == ["a", "b"]


def test_other_settings_another_device_and_a_damaged_file_are_measured_anew(place, monkeypatch):
    place.measure([part("a")])
    place.measure([part("a", dry={"size": 2})])
    assert place.begun == ["a"]
    machine = {**results.machine(CPU), "device": "another"}
    with monkeypatch.context() as patch:
        patch.setattr(results, "machine", lambda device: machine)
        place.measure([part("a", dry={"size": 2})])
        assert place.begun == ["a"]
    results.path(place.out, "a").write_text("{")
    place.measure([part("a")])
    assert place.begun == ["a"]


def test_a_part_that_would_not_end_in_time_is_not_begun_and_a_shorter_one_is(place):
    parts = [part("a", 60), part("long", 50), part("short", 30), part("none", 20)]
    assert place.measure(parts, seconds=100) == 0
    assert (place.begun, place.now) == (["a", "short"], 90)
    says("bench.no_time", place.lines[-1])
    assert place.measure(parts, seconds=100) == 0
    assert place.begun == ["long", "none"]


def test_a_part_that_resumes_is_begun_where_there_is_some_time(place):
    resuming = part("a", 1000, resumes=True)
    place.measure([resuming], seconds=runner.LEAST - 1)
    assert place.begun == []
    place.ends["a"] = "stopped"
    assert place.measure([resuming, part("b")], seconds=runner.LEAST) == 0
    assert place.begun == ["a"]
    says("bench.no_time_for_the_rest", place.lines[-1])


def test_a_part_that_fails_is_told_and_the_others_go_on(place):
    place.ends["a"] = "failed"
    assert place.measure([part("a"), part("b")]) == 1
    assert place.begun == ["a", "b"]
    says("bench.failed", place.lines[-1])
    assert results.read(place.out, "a") is None


def test_a_part_that_lacks_something_is_left_out_and_says_what(place):
    assert place.measure([part("a", lacks=lambda given: "no text"), part("b")]) == 0
    assert place.begun == ["b"]
    says("bench.left_out", place.lines[0])


@pytest.fixture
def program_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], runner.Start]:
    """Let a shell script stand for the process of a part."""

    def make(script: str) -> runner.Start:
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        monkeypatch.setattr(runner, "GRACE", 1.0)
        asked = Asked(CPU, tmp_path / "gpu", 0.0, text=Path("text"))
        return runner.in_a_process(asked, lines.append)

    lines: list[str] = []
    make.lines = lines  # pyright: ignore[reportFunctionMemberAccess]
    return make


SAVES = "trap 'exit 130' INT\nwhile :; do sleep .05; done"
DEAF = "trap '' INT\nwhile :; do sleep .05; done"


def test_a_process_that_ends_well_leaves_no_log(program_that, tmp_path):
    where = tmp_path / "words"
    assert program_that(f'echo "$@" > {where}')(part("a"), 60) == "done"
    assert where.read_text().split() == [
        "-m",
        "bench.gpu.one",
        "a",
        "cpu",
        f"{tmp_path}/gpu",
        "text",
    ]
    assert list((tmp_path / "gpu").iterdir()) == []


def test_a_process_that_fails_leaves_its_log_and_its_last_line_is_told(program_that, tmp_path):
    start = program_that("echo first; echo 'ValueError: wrong' >&2; exit 3")
    assert start(part("a"), 60) == "failed"
    assert (tmp_path / "gpu/a.log").read_text() == "first\nValueError: wrong\n"
    # Somebody else may kill it, for the memory that it takes.
    assert program_that("echo last; kill -9 $$")(part("a", resumes=True), 60) == "failed"
    says("bench.process_failed", "\n".join(program_that.lines), tmp_path)


@pytest.mark.parametrize(("key", "script"), [("saves", SAVES), ("deaf", DEAF)])
def test_a_process_is_ended_in_time_whether_it_listens_or_not(program_that, key, script, tmp_path):
    began = time.monotonic()
    assert program_that(script)(part("a", resumes=True), 1.3) == "stopped"
    assert program_that(script)(part("a"), 1.3) == "failed"
    assert time.monotonic() - began < 20
    says(f"bench.time_was_up.{key}", "\n".join(program_that.lines), tmp_path)


def test_an_interruption_is_passed_on_once_and_awaited(program_that, tmp_path):
    count = tmp_path / "count"
    saves = f"trap 'echo once >> {count}; sleep .2; exit 130' INT\n: > {count}.begun"
    start = program_that(f"{saves}\nwhile :; do sleep .05; done")

    def interrupt() -> None:
        while not Path(f"{count}.begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        start(part("a"), 60)
    thread.join()
    assert count.read_text() == "once\n"


def test_what_is_interrupted_while_it_starts_does_not_go_on_alone(program_that, monkeypatch):
    start, made, real = program_that("while :; do sleep .05; done"), [], subprocess.Popen

    def starting(*given, **how):
        made.append(real(*given, **how))
        os.kill(os.getpid(), signal.SIGINT)
        return made[0]

    monkeypatch.setattr(subprocess, "Popen", starting)
    heard = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start(part("a"), 60)
    assert made[0].returncode is not None
    assert signal.getsignal(signal.SIGINT) is heard


def test_results_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    small, large = part("a"), part("a", dry={"size": 2})
    results.write(tmp_path, small, small.given(CPU, None), Found([{"size": 1}]), 0.0)
    before = results.path(tmp_path, "a").read_bytes()
    monkeypatch.setenv("ATTNLAB_FAULT", "file.write:full:1")
    write._pass_counts.clear()
    with pytest.raises(OSError) as raised:  # noqa: PT011
        results.write(tmp_path, large, large.given(CPU, None), Found([{"size": 2}]), 0.0)
    assert raised.value.errno == errno.ENOSPC
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", before)]


def test_no_number_is_kept_that_is_none(tmp_path):
    given = part("a").given(CPU, None)
    with pytest.raises(ValueError):  # noqa: PT011
        results.write(tmp_path, part("a"), given, Found([{"size": math.nan}]), 0.0)
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_it_says_so_measures_nothing_and_is_content(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runner, "measure", None)
    out = tmp_path / "docs" / "gpu"
    assert program.main(["--out", str(out)]) == 0
    says("bench.no_gpu", capsys.readouterr().out, out, torch.__version__)
    page = out.with_suffix(".md").read_text()
    assert "## " not in page
    assert all(f"`{part.name}`" in page for part in PARTS)
    assert not out.exists()


def test_a_dry_run_does_not_write_where_results_are_read(capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["--dry"])
    assert ended.value.code == 2
    says("bench.dry_without_out", capsys.readouterr().err.splitlines()[-1])


def test_speeds_are_shares_of_the_rate_of_the_same_device_only(place):
    speed = part("speed", measure=lambda given: Found([{"arm": "x|y", "TFLOP/s": 1.0, "n": 12345}]))
    rate = part(table.RATE)
    place.measure([rate, speed])
    tables = table.text([rate, speed], place.out)
    assert "| arm | TFLOP/s | of the matrix rate | n |" in tables
    assert r"| x\|y | 1 | 50 % | 12,345 |" in tables
    assert "| size | TFLOP/s |\n" in tables
    kept = json.loads(results.path(place.out, table.RATE).read_text())
    results.path(place.out, table.RATE).write_text(json.dumps({**kept, "device": "another"}))
    assert "| of the matrix rate |" not in table.text([speed], place.out)


def test_a_part_without_results_has_no_section_and_is_named_at_the_end(place):
    measured, missing = part("measured"), part("missing")
    place.measure([measured])
    tables = table.text([missing, measured], place.out)
    assert [line for line in tables.splitlines() if line.startswith("## ")] == ["## measured"]
    assert tables.splitlines()[-1] == table.NOT_MEASURED.format(names="`missing`").strip()
    assert tables.count("missing") == 1
    assert "`" not in table.text([measured], place.out).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_program_measures_once_and_writes_its_tables(tmp_path):
    arguments = ["-m", "bench.gpu", "--dry", "--out", str(tmp_path / "gpu"), "--only", table.RATE]
    first, again = (
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
        for _ in range(2)
    )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert results.read(tmp_path / "gpu", table.RATE) is not None
    says("bench.measured_before", again.stdout)
    assert "| bf16 | 16 |" in (tmp_path / "gpu.md").read_text()
