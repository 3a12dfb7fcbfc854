"""Where a sweep stands: which run is which, and how long the rest takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from attnlab.run_record.result import RunResult


class PlaceInSweep(NamedTuple):
    """One run of a sweep, for whoever shows its progress."""

    title: str = ""
    """`[ 3/24] multihead lr=0.001 seed=1`; empty for a run that is alone."""
    sweep_left: Callable[[], float | None] = lambda: None
    """Returns the seconds that the runs after this one take; None if unknown."""
    announce_attempt: Callable[[Path], None] = lambda path: None
    """Is told the directory of the attempt that the run begins."""


class SweepProgress:
    """Knows the labels of all runs, and how long those took that were trained."""

    def __init__(self, labels: Sequence[str] = (), jobs: int = 1) -> None:
        self.labels, self.jobs = labels, jobs
        self._num_ended = 0
        self._seconds_of_runs: list[float] = []

    def place(self, index: int) -> PlaceInSweep:
        """Return the place of the run at an index."""
        return PlaceInSweep(self.title(index), lambda: self.seconds_left(num_running=1))

    def title(self, index: int) -> str:
        """Return the place and the label of a run: `[ 3/24] multihead lr=0.001 seed=1`."""
        if not self.labels:
            return ""
        total = len(self.labels)
        return f"[{index + 1:>{len(str(total))}}/{total}] {self.labels[index]}".rstrip()

    def count_ended(self, result: RunResult | None, was_trained: bool) -> None:
        """Count a run that has ended."""
        self._num_ended += 1
        if was_trained and result is not None:
            self._seconds_of_runs.append(result.attempt_seconds)

    def seconds_left(self, num_running: int = 0) -> float | None:
        """Estimate the seconds of the runs still to come, by the mean of those that were trained.

        `num_running` of them do not count, as their own progress says more. None if there was none.
        """
        num_left = len(self.labels) - self._num_ended - num_running
        if not self._seconds_of_runs or num_left < 0:
            return None
        mean_seconds = sum(self._seconds_of_runs) / len(self._seconds_of_runs)
        return mean_seconds * num_left / self.jobs
