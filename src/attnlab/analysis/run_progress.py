"""How far a run is, and how long it will still take."""

import time
from calendar import timegm
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from attnlab.run_record.record import AttemptState
from attnlab.run_record.result import FailedAttempt, InterruptedAttempt, RunResult


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run that is not finished."""

    step: int
    """The last step that is known."""
    max_steps: int | None
    seconds_left: float | None
    """At the mean pace of its running attempt; None where it does not run, or has no pace yet."""


def run_progress(
    attempt: AttemptState | None, config: Mapping[str, Any], now: float
) -> RunProgress:
    """Return the progress of a run from its last attempt; `now` is in seconds since the epoch.

    `config` has the dotted keys of the run.
    """
    max_steps = config.get("trainer.max_steps")
    if not isinstance(max_steps, int):
        max_steps = None
    if attempt is None:
        return RunProgress(0, max_steps, None)
    step = last_step(attempt)
    start_time = epoch_seconds(attempt.claim["at"])
    origin = attempt.claim["resumed_from"]
    num_steps = step - (0 if origin is None else origin["step"])
    if attempt.summary is not None or start_time is None or max_steps is None or num_steps <= 0:
        return RunProgress(step, max_steps, None)
    seconds_per_step = max(0.0, now - start_time) / num_steps
    return RunProgress(step, max_steps, seconds_per_step * max(0, max_steps - step))


def last_step(attempt: AttemptState) -> int:
    """Return the last step of an attempt that its summary, or else its last beat, states."""
    summary = attempt.summary
    if isinstance(summary, RunResult):
        return summary.steps
    if isinstance(summary, InterruptedAttempt):
        return summary.step
    if isinstance(summary, FailedAttempt):
        return summary.error.step
    _, step = attempt.beat
    return step


def epoch_seconds(utc_time: str) -> float | None:
    """Return a UTC time of the record in seconds since the epoch; None where it is none."""
    with suppress(ValueError):
        return float(timegm(time.strptime(utc_time, "%Y-%m-%dT%H:%M:%SZ")))
    return None
