"""What every launcher is: a way to do several runs, which says of each what became of it."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from attnlab.config import Config
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.launch.outcome import Outcome
from attnlab.launch.sweep_progress import PlaceInSweep, SweepProgress
from attnlab.ranges import FewCountOrZero

Outcomes = Generator[tuple[int, Outcome], None, None]
"""The index of each config and what became of its run, in the order in which they end."""
Retried = Literal["killed", "hung", "memory", "disk", "logger", "error"]
"""The causes of a failure after which a run may be tried again; a diverged one would again."""
RETRIED: tuple[Retried, ...] = ("killed", "hung", "memory")


class Pass(NamedTuple):
    """One pass over runs: how each of them is done."""

    console: Console
    postpones: bool
    """Whether a run that is held or has died is left for the next pass."""
    known_notes: set[str]
    """What the datasets of the runs so far have said of themselves."""
    sweep_progress: SweepProgress = SweepProgress()
    """Which run is which, and how long they take."""


class Launcher(ABC):
    """Does runs somewhere: in this process, in processes of their own, on a cluster.

    A run is skipped, resumed or started by what its record says, wherever it is done, so a launcher
    keeps nothing of its own. One that fails for a cause in `retry_on` is tried again at most
    `retries` times, once all others are done.
    """

    jobs: int = 1
    """How many runs it does at once."""

    def __init__(
        self, *, retries: FewCountOrZero = 2, retry_on: Sequence[Retried] = RETRIED
    ) -> None:
        self.retries, self.retry_on = retries, tuple(retry_on)

    def require_possible(self, configs: Sequence[Config]) -> None:  # noqa: B027
        """Raise RequestError where the runs cannot be done so here, before anything is written."""

    @abstractmethod
    def outcomes(
        self, configs: Sequence[Config], indices: Sequence[int], this_pass: Pass
    ) -> Outcomes:
        """Do the runs at some indices, and yield what became of each as it ends.

        A run that fails in any way does not stop the others. Raises Interrupted once what was
        running is saved.
        """


def run_to_outcome(config: Config, this_pass: Pass, place: PlaceInSweep | None = None) -> Outcome:
    """Do a run here, and return what became of it; a failure before it began is an outcome too."""
    # Lightning takes seconds to import, and a config names its launcher before that.
    from attnlab.launch.run import run

    runs_dir = Path(config.values["runs_dir"])
    try:
        return run(
            config,
            this_pass.console,
            this_pass.postpones,
            this_pass.known_notes,
            place or PlaceInSweep(),
        )
    except RequestError as error:
        return Outcome(runs_dir, "blocked", note=str(error))
    # Nothing is known of what a user's own parts may raise, or end.
    except (Exception, SystemExit) as error:
        line = f"{type(error).__name__}: {error}".split("\n")[0]
        note = f"{line}; `attnlab train` on this run alone with --traceback says where"
        return Outcome(runs_dir, "failed", note=note, cause="error")
