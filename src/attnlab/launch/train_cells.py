"""Train the cells of a sweep, and keep the list of them beside the runs."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attnlab.config import Cell
from attnlab.console import Console
from attnlab.experiment import Experiment
from attnlab.launch.launcher import Launcher
from attnlab.launch.many import run_many
from attnlab.launch.outcome import Outcome
from attnlab.launch.show import outcome_line
from attnlab.launch.sweep_launcher import num_threads, record_of_sweep
from attnlab.launch.sweep_progress import SweepProgress
from attnlab.run_record.choice_name import short_labels
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.sweep_record import Launch, ListedCell

LOOK_SECONDS = 2.0
"""How often is looked whether somebody has asked the sweep to stop."""


def train_cells(cells: Sequence[Cell], launcher: Launcher, console: Console) -> list[Outcome]:
    """Train what is missing of the cells of one sweep, and print a line as each of them ends.

    They are listed as cells of their sweep first. Raises RecordError where that cannot be written,
    and Interrupted once what was running is saved, also where `attnlab sweep cancel` asks for it.
    """
    configs = [cell.config for cell in cells]
    sweep_record = record_of_sweep(configs)
    sweep_record.add(
        [
            ListedCell(
                config.overrides,
                identity_hash(Experiment(config).identity),
                config.user_targets.config_dir,
            )
            for config in configs
        ],
        num_threads(configs),
    )
    outcomes = []
    progress = SweepProgress(short_labels([config.overrides for config in configs]))
    choice = str(configs[0].choices["launcher"])
    with sweep_record.launching(choice, launcher.jobs) as launch, _heeding_cancel(launch):
        for index, outcome in run_many(configs, console, launcher, progress):
            outcomes.append(outcome)
            title, seconds_left = progress.title(index), progress.seconds_left()
            console.print(outcome_line(outcome, title, seconds_left, console.width))
    return outcomes


@contextmanager
def _heeding_cancel(launch: Launch) -> Iterator[None]:
    """Interrupt this process inside the block where somebody cancels its launch."""
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.wait(LOOK_SECONDS):
            if launch.is_cancelled:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        has_ended.set()
