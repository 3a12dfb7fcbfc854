"""The seconds of a run are those of the attempts that led to its last step."""

from attnlab.callbacks import stopwatch
from attnlab.callbacks.stopwatch import Stopwatch


def test_seconds_are_added_over_attempts_up_to_each_checkpoint(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now)
    first = Stopwatch()
    now = 107.0
    saved = first.state_dict()
    # What comes after the checkpoint is lost with the rows.
    now = 150.0
    assert first.seconds == 50.0
    second = Stopwatch()
    second.load_state_dict(saved)
    now = 153.0
    assert (second.seconds_before, second.seconds) == (7.0, 10.0)
    third = Stopwatch()
    third.load_state_dict(second.state_dict())
    assert third.seconds == 10.0


def test_seconds_before_an_older_checkpoint_stay_unknown(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now)
    resumed = Stopwatch()
    resumed.load_state_dict(None)
    now = 103.0
    assert (resumed.seconds_before, resumed.seconds) == (None, 3.0)
    again = Stopwatch()
    again.load_state_dict(resumed.state_dict())
    assert again.seconds_before is None
