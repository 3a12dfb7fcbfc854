"""A run shows how far it is, how fast it goes and how long it takes, and names as they are."""

import io
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from attnlab.callbacks import progress
from attnlab.callbacks.progress import ProgressBar, format_seconds
from attnlab.console import Console


def test_a_name_on_a_bar_is_text_whatever_it_holds():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with ProgressBar(console, "[link=http://elsewhere]x[/nope]\x1b]0;mine\x07", 3) as bar:
        bar.receive_rows("train", [{"step": 1, "loss": 0.5}])
        bar.live.refresh()
    assert "[link=http://elsewhere]x[/nope]" in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def trained(bar: ProgressBar, clock: list[float], step: int, seconds: float) -> None:
    """Let a run arrive at a step, so many seconds after its start."""
    clock[0] = seconds
    trainer = Mock(spec=pl.Trainer, global_step=step)
    bar.on_train_batch_end(trainer, Mock(spec=pl.LightningModule), None, None, 0)


def begun(bar: ProgressBar, step: int = 0) -> None:
    trainer = Mock(spec=pl.Trainer, global_step=step)
    bar.on_train_start(trainer, Mock(spec=pl.LightningModule))


def test_the_terminal_shows_speed_validation_and_the_time_left_of_run_and_sweep(clock):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    title = "[ 3/24] gated_delta position=none lr=0.001 weight_decay=0.1 seed=1"
    with ProgressBar(console, title, 120, 1000, lambda: 100.0) as bar:
        begun(bar)
        trained(bar, clock, 60, 30.0)
        bar.receive_rows("validation", [{"step": 60, "loss": 0.69, "accuracy": 0.513}])
        bar.live.refresh()
    text = shown.getvalue()
    for words in (
        "[ 3/24] gated_delta",
        "60/120",
        "2.0 steps/s 2.0k tok/s",
        "val 0.690",
        "acc 0.513",
    ):
        assert words in text
    assert "0:30 left, sweep 2:10" in text
    assert len(bar.describe()) <= 80
    assert bar.pace_of_training == (2.0, 2000.0)


def test_the_speed_of_a_resumed_run_is_that_of_its_own_steps(clock):
    bar = ProgressBar(Console(quiet=True), "", 100)
    begun(bar, step=50)
    assert bar.pace is None
    trained(bar, clock, 60, 5.0)
    assert bar.pace is not None
    assert bar.pace.steps_per_second == 2.0


def test_without_a_terminal_a_line_comes_with_a_validation_but_not_with_each(clock):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=False, width=80, soft_wrap=True)
    with ProgressBar(console, "[1/2] moe", 100, 10) as bar:
        begun(bar)
        for step, seconds in ((10, 5.0), (20, 31.0), (30, 40.0), (40, 62.0)):
            trained(bar, clock, step, seconds)
            bar.receive_rows("train", [{"step": step, "loss": 0.5}])
            bar.receive_rows("validation", [{"step": step, "loss": 0.25}])
    lines = shown.getvalue().splitlines()
    assert [line.partition("  ")[0] for line in lines] == [
        "[1/2] moe: step 20/100",
        "[1/2] moe: step 40/100",
    ]
    assert "val 0.250" in lines[0]


def test_durations_are_short():
    assert [format_seconds(s) for s in (0.4, 42, 725, 12000)] == [
        "0:00",
        "0:42",
        "12:05",
        "3:20:00",
    ]
