"""The process that holds an attempt or a launch: whether it exists, and its sign of life."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from attnlab.run_record.forms import SCHEMA
from attnlab.run_record.read import read_plain_file

MOST_BEAT = 64
"""Largest size of a sign of life in bytes."""
CLOCK_SECONDS = 2
"""A start time is rounded to clock ticks, and relative to a boot time that can be corrected."""


def claim_of_this_process() -> dict[str, Any]:
    """Return what a claim states of the process that makes it."""
    return {
        "schema": SCHEMA,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": psutil.Process().create_time(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def is_here(claim: Mapping[str, Any]) -> bool:
    """Return whether the process of a claim was started on this host."""
    return claim["host"] == socket.gethostname()


def holder_exists(claim: Mapping[str, Any]) -> bool:
    """Return whether the process that made a claim exists; True if it is on another host."""
    if not is_here(claim):
        return True
    try:
        process = psutil.Process(claim["pid"])
        start_time, status = process.create_time(), process.status()
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        # The last two errors: the claim has a number that no process can have.
        return False
    # A killed process keeps its pid until its parent has read its exit code.
    if status == psutil.STATUS_ZOMBIE:
        return False
    return abs(start_time - claim["process_start"]) < CLOCK_SECONDS


def read_beat(attempt_dir: Path) -> tuple[int, int]:
    """Return the number of beats of an attempt, and the step of the last; zeros before the first.

    Raises RecordError for a beat that is no plain file of the run.
    """
    try:
        counter, step = read_plain_file(
            attempt_dir / "beat", attempt_dir.parents[1], MOST_BEAT
        ).split()
        return int(counter), int(step)
    except (FileNotFoundError, ValueError):
        return 0, 0
