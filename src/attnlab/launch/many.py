"""Many runs through one launcher, and none of them ends the others."""

from collections.abc import Sequence

from attnlab.config import Config
from attnlab.console import Console
from attnlab.launch.inline import Inline
from attnlab.launch.launcher import Launcher, Outcomes, Pass
from attnlab.launch.processes import Processes
from attnlab.launch.show import start_lines
from attnlab.launch.sweep_progress import SweepProgress

POSTPONED = ("held", "dead")
"""The outcomes of runs that are tried again once all others are done."""


def run_many(
    configs: Sequence[Config],
    console: Console,
    launcher: Launcher,
    progress: SweepProgress | None = None,
) -> Outcomes:
    """Do what is missing of many runs; yields the index of each and its outcome, as they end.

    `progress` names the runs where their progress is shown, and counts those that end.

    A run that fails in any way does not stop the others. What another process holds, and what has
    died before, comes last. Raises Interrupted once what was running is saved.
    """
    postponed: list[int] = []
    known_notes: set[str] = set()
    progress = progress or SweepProgress()
    progress.jobs = launcher.jobs
    if launcher.jobs > 1 and progress.labels:
        # Runs in processes of their own have no bar, and say nothing for a while.
        console.print(start_lines(configs, launcher.jobs))
    for is_first_pass in (True, False):
        indices = list(range(len(configs))) if is_first_pass else postponed
        this_pass = Pass(console, is_first_pass, known_notes, progress)
        for index, outcome in launcher.outcomes(configs, indices, this_pass):
            known_notes.update(outcome.notes)
            if is_first_pass and outcome.status in POSTPONED:
                postponed.append(index)
            else:
                progress.count_ended(outcome.result, outcome.status == "finished")
                yield index, outcome


def launcher_for(jobs: int) -> Launcher:
    """Return the launcher that does so many runs at once."""
    return Inline() if jobs == 1 else Processes(jobs)
