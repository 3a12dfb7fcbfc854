"""How far a run is, and how long it will still take."""

import time
from calendar import timegm
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from attnlab.run_record.record import AttemptState
from attnlab.run_record.result import FailedAttempt, InterruptedAttempt, RunResult

SILENT_AFTER = 10.0
"""Seconds without a beat after which a run counts as silent; longer where its steps are."""
SILENT_STEPS = 5
"""The number of steps at its mean pace that a run may be silent for."""


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run that is not finished."""

    step: int
    """The last step that is known."""
    max_steps: int | None
    seconds_left: float | None = None
    """At the mean pace of its running attempt; None where it does not run, or has no pace yet."""
    seconds_silent: float | None = None
    """Since its last sign of life; None where that is recent, or the run does not run."""


def run_progress(
    attempt: AttemptState | None, config: Mapping[str, Any], now: float, *, is_running: bool = True
) -> RunProgress:
    """Return the progress of a run from its last attempt; `now` is in seconds since the epoch.

    `config` has the dotted keys of the run. Steps of earlier attempts do not count for the pace. A
    run whose beat stands still (paused, hung, on a host that is down) has no time left.
    """
    max_steps = config.get("trainer.max_steps")
    if not isinstance(max_steps, int):
        max_steps = None
    if attempt is None:
        return RunProgress(0, max_steps)
    origin = attempt.claim["resumed_from"]
    first_step = 0 if origin is None else origin["step"]
    # Before its first beat, a resumed attempt is where the checkpoint was.
    step = max(first_step, last_step(attempt))
    start_time = epoch_seconds(attempt.claim["at"])
    if not is_running or attempt.summary is not None:
        return RunProgress(step, max_steps)
    num_steps = step - first_step
    seconds_per_step, last_sign = None, _last_sign_of_life(attempt)
    if num_steps > 0 and start_time is not None:
        seconds_per_step = max(0.0, last_sign - start_time) / num_steps
    seconds_silent = max(0.0, now - last_sign)
    if seconds_silent > max(SILENT_AFTER, SILENT_STEPS * (seconds_per_step or 0)):
        return RunProgress(step, max_steps, seconds_silent=seconds_silent)
    if seconds_per_step is None or max_steps is None:
        return RunProgress(step, max_steps)
    return RunProgress(step, max_steps, seconds_per_step * max(0, max_steps - step))


def _last_sign_of_life(attempt: AttemptState) -> float:
    """Return when an attempt last beat, or began, in seconds since the epoch."""
    for name in ("beat", "claim.json"):
        with suppress(OSError):
            return (attempt.path / name).lstat().st_mtime
    return 0.0


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
