"""How far a run is: the pace of its own attempt counts, and a beat that stands still is said."""

import os

import pytest

from attnlab.analysis.run_progress import SILENT_AFTER, epoch_seconds, run_progress
from attnlab.report.frame import describe_progress
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from tests.fabricated import interrupted, result

CONFIG = {"trainer.max_steps": 500}


def begin(path, origin=None):
    return Attempt.claim(path, result().identity, origin)


def progress_after(attempt, seconds, silent=0.0, **options):
    """The progress so many seconds after the claim, and `silent` seconds after the last beat."""
    state = Record(attempt.path.parents[1]).attempts[-1]
    start = epoch_seconds(state.claim["at"])
    assert start is not None
    now = start + seconds
    for name in ("beat", "claim.json"):
        os.utime(attempt.path / name, (now - silent, now - silent))
    return run_progress(state, CONFIG, now, **options)


def test_the_time_left_is_at_the_mean_pace(tmp_path):
    attempt = begin(tmp_path / "run")
    attempt.beat(100)
    progress = progress_after(attempt, 50)
    assert (progress.step, progress.seconds_left, progress.seconds_silent) == (100, 200.0, None)
    assert describe_progress(progress) == "step 100 of 500, 3.3 min left"


def test_after_a_resume_only_the_steps_since_count_for_the_pace(tmp_path):
    begin(tmp_path / "run").close()
    attempt = begin(tmp_path / "run", {"attempt": 1, "step": 300, "sha256": "x"})
    before = progress_after(attempt, 2)
    assert (before.step, before.seconds_left) == (300, None)
    assert describe_progress(before) == "step 300 of 500"
    attempt.beat(400)
    assert progress_after(attempt, 50).seconds_left == 50.0


def test_a_run_whose_beat_stands_still_is_silent_and_has_no_time_left(tmp_path):
    attempt = begin(tmp_path / "run")
    attempt.beat(100)
    progress = progress_after(attempt, 145, silent=45)
    assert (progress.seconds_left, progress.seconds_silent) == (None, 45.0)
    assert describe_progress(progress) == "step 100 of 500, silent for 45 s"


@pytest.mark.parametrize(("steps", "is_silent"), [(100, True), (3, False)])
def test_a_run_of_long_steps_may_be_silent_for_a_few_of_them(tmp_path, steps, is_silent):
    attempt = begin(tmp_path / "run")
    attempt.beat(steps)
    progress = progress_after(attempt, 60 + 3 * SILENT_AFTER, silent=3 * SILENT_AFTER)
    assert (progress.seconds_silent is not None) == is_silent


def test_a_run_that_does_not_run_has_neither(tmp_path):
    attempt = begin(tmp_path / "run")
    attempt.beat(100)
    killed = progress_after(attempt, 60, silent=50, is_running=False)
    assert describe_progress(killed) == "step 100 of 500"
    attempt.end(interrupted(step=120))
    assert describe_progress(progress_after(attempt, 60)) == "step 120 of 500"
