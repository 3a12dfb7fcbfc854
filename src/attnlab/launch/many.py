"""Many runs through one launcher, and none of them ends the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from attnlab.config import Config
from attnlab.console import Console
from attnlab.launch.launcher import Launcher, Outcomes, Pass
from attnlab.launch.outcome import Outcome
from attnlab.launch.sweep_progress import SweepProgress

POSTPONED = ("held", "dead")
"""The outcomes of runs that are tried once all others are done."""


def run_many(
    configs: Sequence[Config],
    console: Console,
    launcher: Launcher,
    progress: SweepProgress | None = None,
) -> Outcomes:
    """Do what is missing of many runs; yields the index of each and its outcome, as they end.

    `progress` names the runs where their progress is shown, and counts those that end.

    A run that fails in any way does not stop the others. What another process holds, what has died
    before, and what the launcher tries again comes last. Raises Interrupted once what was running
    is saved.
    """
    # Rich and Lightning are slow to load, and the module is named before they are needed.
    from attnlab.launch.show import start_lines

    progress = progress or SweepProgress()
    progress.jobs = launcher.jobs
    if launcher.jobs > 1 and progress.labels:
        # Runs in processes of their own have no bar, and say nothing for a while.
        console.print(start_lines(configs, launcher.jobs))
    known_notes: set[str] = set()
    num_failures = Counter[int]()
    indices, is_first_pass = [*range(len(configs))], True
    while indices:
        postponed: list[int] = []
        this_pass = Pass(console, is_first_pass, known_notes, progress)
        for index, outcome in launcher.outcomes(configs, indices, this_pass):
            known_notes.update(outcome.notes)
            num_failures[index] += outcome.cause is not None
            if is_first_pass and outcome.status in POSTPONED:
                postponed.append(index)
            elif outcome.cause in launcher.retry_on and num_failures[index] <= launcher.retries:
                postponed.append(index)
                console.print(
                    f"{progress.title(index) or outcome.directory.name}: {outcome.note}; tried "
                    f"again after the others ({num_failures[index]} of {launcher.retries})"
                )
            else:
                progress.count_ended(outcome.result, outcome.status == "finished")
                yield index, _with_count(outcome, num_failures[index])
        indices, is_first_pass = postponed, False


def _with_count(outcome: Outcome, num_failures: int) -> Outcome:
    """Return the outcome of a run with the number of its failures, where that is more than one."""
    if outcome.cause is None or num_failures < 2:
        return outcome
    return replace(outcome, note=f"{outcome.note} ({num_failures} times)")
