"""A sweep says which run is which, and how long the rest takes."""

from pathlib import Path

from attnlab.callbacks.progress import Pace
from attnlab.launch.outcome import Outcome
from attnlab.launch.show import outcome_line, start_lines
from attnlab.launch.sweep_progress import SweepProgress
from attnlab.run_record.choice_name import short_labels
from tests.child import TINY
from tests.fabricated import result


def test_a_run_is_labelled_by_the_overrides_that_not_all_runs_have():
    cells = [
        ["dataset=parity", "model/mixer=gated_delta", "model/position=none", "seed=0"],
        ["dataset=parity", "model/mixer=multihead", "model/position=rope", "seed=1"],
    ]
    assert short_labels(cells) == ["gated_delta position=none seed=0", "multihead rope seed=1"]
    sweep = SweepProgress(short_labels([["variant=moe", f"optimizer.lr={lr}"] for lr in range(12)]))
    assert sweep.title(2) == "[ 3/12] lr=2"


def test_the_time_left_is_that_of_trained_runs_shared_by_the_jobs():
    sweep = SweepProgress([""] * 6, jobs=2)
    assert sweep.seconds_left() is None
    sweep.count_ended(result(seconds=1.0), was_trained=False)
    assert sweep.seconds_left() is None
    sweep.count_ended(result(seconds=10.0), was_trained=True)
    sweep.count_ended(result(seconds=20.0), was_trained=True)
    assert sweep.seconds_left() == 15.0 * 3 / 2
    assert sweep.place(5).sweep_left() == 15.0 * 2 / 2


def test_runs_at_once_say_at_the_start_how_many_and_where_to_follow_them(once):
    text = start_lines([once(*TINY, f"seed={seed}") for seed in (0, 1, 2)], jobs=8)
    assert text.startswith("3 runs, 3 at a time; ")
    assert "runs/RUN/attempts" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_line_says_which_run_how_fast_and_how_long_still_within_80_columns():
    content = result(accuracy=0.75, seconds=28.6)
    outcome = Outcome(Path("parity-1x64-s0-cc5a068b14"), "finished", content, pace=Pace(14, 41e3))
    text = outcome_line(outcome, "[ 3/24] gated_delta lr=0.001 seed=0", 310.0)
    assert text.splitlines() == [
        "[ 3/24] gated_delta lr=0.001 seed=0  parity-1x64-s0-cc5a068b14",
        "        test/accuracy 0.750  28.6 s  14 steps/s 41k tok/s  about 5:10 left",
    ]
    skipped = Outcome(Path("run-abc"), "skipped", content, "finished before")
    assert outcome_line(skipped, "[1/2] moe", None, 200) == (
        "[1/2] moe  run-abc  test/accuracy 0.750  skipped: finished before"
    )
