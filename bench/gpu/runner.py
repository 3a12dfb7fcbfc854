"""Measures parts in turn, as long as the time lasts, and says what is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bench.gpu import results
from bench.gpu.part import Part

LEAST = 60.0
"""Seconds that a part which resumes must have to be worth its start."""
GRACE = 20.0
"""Seconds that a part has to save itself, after which it is killed."""

Ended = Literal["done", "failed", "stopped"]
Start = Callable[[Part, float], Ended]
"""Measures a part within so many seconds, and keeps its results."""


@dataclass(frozen=True)
class Asked:
    """What somebody wants measured."""

    device: torch.device
    out: Path
    seconds: float
    """All that may be spent."""
    again: bool = False
    """Whether to measure what is there already."""
    text: Path | None = None


def measure(
    parts: Sequence[Part],
    asked: Asked,
    start: Start,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = print,
) -> int:
    """Measure what is not there; gives the exit code, 1 where a part has failed.

    A part that is not likely to end in time is not begun, so that a shorter one still can be.
    """
    end = clock() + asked.seconds
    left: list[str] = []
    failed: list[str] = []
    for part in parts:
        given = part.given(asked.device, asked.text)
        if not asked.again and results.there(asked.out, part, given):
            tell(f"{part.name}: is there")
            continue
        if lacking := part.lacks(given):
            tell(f"{part.name}: left out, {lacking}")
            continue
        seconds = end - clock()
        if seconds < (min(LEAST, part.seconds) if part.resumes else part.seconds):
            left.append(part.name)
            continue
        tell(f"{part.name}: about {part.seconds:.0f} s, {seconds:.0f} s are left")
        ended = start(part, seconds)
        tell(f"{part.name}: {ended} after {seconds - (end - clock()):.0f} s")
        if ended == "failed":
            failed.append(part.name)
        if ended == "stopped":
            left.append(part.name)
    if failed:
        tell(f"failed: {', '.join(failed)}")
    if left:
        tell(f"not measured for want of time: {', '.join(left)}; the same command goes on")
    return 1 if failed else 0


def in_a_process(asked: Asked, tell: Callable[[str], None] = print) -> Start:
    """Start parts each in a process of its own, which is ended when its time is up.

    What it prints goes to NAME.log beside its results, which is kept where it did not end well.
    """

    def start(part: Part, seconds: float) -> Ended:
        asked.out.mkdir(parents=True, exist_ok=True)
        log, late = asked.out / f"{part.name}.log", False
        place = [part.name, asked.device.type, str(asked.out)]
        text = [] if asked.text is None else [str(asked.text)]
        with log.open("w") as file, _interruption_put_off() as let_in:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.gpu.one", *place, *text],
                stdout=file,
                stderr=subprocess.STDOUT,
                # In a group of its own, so that a terminal's Ctrl-C does not come twice.
                process_group=0,
            )
            try:
                let_in()
                code = process.wait(max(0.0, seconds - GRACE))
            except subprocess.TimeoutExpired:
                code, late = _end(process), True
            except KeyboardInterrupt:
                _end(process)
                raise
        if code == 0:
            log.unlink()
            return "done"
        if late and part.resumes:
            return "stopped"
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        why = "its time was up" if late else last
        tell(f"{part.name}: {why} (exit code {code}; {log})")
        return "failed"

    return start


@contextmanager
def _interruption_put_off() -> Iterator[Callable[[], None]]:
    """Let no Ctrl-C come between the start of a process and the moment that it is known.

    What is given lets it in from then on, and one that has come.
    """
    came: list[int] = []
    heard = signal.signal(signal.SIGINT, lambda number, _: came.append(number))

    def let_in() -> None:
        signal.signal(signal.SIGINT, heard)
        if came:
            raise KeyboardInterrupt

    try:
        yield let_in
    finally:
        signal.signal(signal.SIGINT, heard)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let a process save itself, or else kill it and what it has started."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
