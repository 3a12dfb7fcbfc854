"""Start-up is timed in turns, and a step is what a longer run takes beyond a shorter one."""

import sys

import pytest

from bench import startup


@pytest.fixture
def timed(monkeypatch) -> list[tuple[str, tuple[str, ...]]]:
    """Stand in for processes: the old tree takes 2 s and 30 ms a step, the new one half of it."""
    calls: list[tuple[str, tuple[str, ...]]] = []

    def seconds(tree, words, _directory) -> float:
        calls.append((tree, tuple(words)))
        steps = next((int(w.split("=")[1]) for w in words if w.startswith("trainer.max_steps")), 0)
        return (2 + 0.03 * steps) / (2 if tree == "new" else 1)

    monkeypatch.setattr(startup, "processor_seconds", seconds)
    return calls


def test_both_trees_run_each_command_in_turn_and_the_first_round_does_not_count(timed, tmp_path):
    times = startup.measure(("old", "new"), 2, tmp_path)  # pyright: ignore[reportArgumentType]
    assert list(times) == [*startup.COMMANDS, startup.STEP]
    assert all(len(pairs) == 2 for pairs in times.values())
    first = [tree for tree, words in timed if words == ("--help",)]
    assert first == ["old", "new", "new", "old", "old", "new"]
    trained = [words for _, words in timed if words[0] == "train"]
    assert {words[:2] for words in trained} == {("train", "dataset=pronoun")}
    # No run is found finished by another, which would train nothing.
    assert len(set(trained)) == len(trained)


def test_a_step_is_the_difference_of_two_runs_over_its_steps(timed, tmp_path):
    for then, now in startup.measure(("old", "new"), 1, tmp_path)[startup.STEP]:  # pyright: ignore[reportArgumentType]
        assert then == pytest.approx(0.03)
        assert now == pytest.approx(0.015)


def test_a_line_has_medians_and_the_ratio_of_each_round():
    line = startup.row("x", [(1.0, 0.5), (2.0, 2.0), (4.0, 2.0)])
    assert line == "| x | 2 | 2 | 0.50 [0.50, 1.00] |"


def test_a_commit_that_is_none_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["startup", "no-such-commit"])
    assert startup.main() == 2
    assert "no-such-commit is no commit" in capsys.readouterr().err
