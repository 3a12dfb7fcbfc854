"""Train cells of a sweep again from the list that it keeps."""

from collections.abc import Sequence
from pathlib import Path

from attnlab.config import Sweep, plan_cells, search_path
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.launch.outcome import Outcome
from attnlab.launch.sweep_launcher import launcher_of, with_shared_cores
from attnlab.places import quote_path
from attnlab.run_record.sweep_record import ListedCell, SweepRecord

PLACES = ("runs_dir=", "sweep=", "retry=", "rerun=")
"""The beginnings of overrides that say where a run goes, and how it is tried."""


def plan_retry(
    sweep_record: SweepRecord,
    cells: Sequence[ListedCell],
    launcher_overrides: Sequence[str],
    config_dir: Path | None,
    begins_anew: bool,
) -> Sweep:
    """Compose and check cells to train them again, also those that were given up.

    With `begins_anew`, failed ones begin at step 0 beside the old runs. Raises ConfigError with the
    faults of all cells, and RequestError where they need a --config-dir.
    """
    listed_dirs = {cell.config_dir for cell in cells if cell.config_dir is not None}
    # What a list names is not taken by itself: it may come from somebody else.
    if listed_dirs and config_dir is None:
        named = ", ".join(sorted(listed_dirs))
        raise RequestError(f"the sweep was made with --config-dir {named}; give that again")
    how = ["rerun=true" if begins_anew else "retry=true", *launcher_overrides]
    place = f"runs_dir={quote_path(sweep_record.runs_dir)}"
    overrides_by_cell = [
        [*(text for text in cell.overrides if not text.startswith(PLACES)), place, *how]
        for cell in cells
    ]
    with search_path(config_dir) as user_targets:
        sweep = plan_cells(overrides_by_cell, user_targets, sweep_record.name)
        launcher = launcher_of([cell.config for cell in sweep.cells])
        return with_shared_cores(sweep, launcher.jobs)


def train_planned(sweep: Sweep, console: Console) -> list[Outcome]:
    """Train the cells of a sweep by its launcher. Raises as `train_cells`."""
    # Lightning takes seconds to import, so a wrong request is refused before that.
    from attnlab.launch.train_cells import train_cells

    configs = [cell.config for cell in sweep.cells]
    launcher = launcher_of(configs)
    launcher.require_possible(configs)
    return train_cells(sweep.cells, launcher, console)
