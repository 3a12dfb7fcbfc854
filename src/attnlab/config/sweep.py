"""The cells of a sweep: what differs between them, which can work, and why the others cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from attnlab.building import UserTargets
from attnlab.config.compose import compose_each
from attnlab.config.composition import sweep_overrides
from attnlab.config.config import Config
from attnlab.config.run_name import name_sweep
from attnlab.errors import ConfigError


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, or a run by itself."""

    overrides: Sequence[str]
    differs: str
    """The overrides that not all cells have; empty for a run by itself."""
    config: Config


@dataclass(frozen=True)
class Sweep:
    """The runs that a command asks for, each composed and checked."""

    cells: Sequence[Cell]
    total: int
    """The number of cells with those that are left out."""
    impossible: Mapping[str, Sequence[str]]
    """Why cells are left out (`skip_impossible`), and what differs in each of these."""

    @property
    def name(self) -> str:
        """The name by which commands find its runs."""
        return self.cells[0].config.values["sweep"]

    @property
    def num_left_out(self) -> int:
        return self.total - len(self.cells)


def plan_sweep(overrides: Sequence[str], user_targets: UserTargets, *, is_multirun: bool) -> Sweep:
    """Compose and check every cell, inside `search_path`.

    Raises ConfigError with the faults of all cells, each once. With skip_impossible=true, a cell
    whose parts are right and do not fit together is left out, as long as another one works.
    """
    overrides_by_cell = sweep_overrides(overrides) if is_multirun else [list(overrides)]
    sweep = plan_cells(overrides_by_cell, user_targets)
    if not is_multirun:
        return sweep
    configs = name_sweep([cell.config for cell in sweep.cells])
    cells = [replace(c, config=config) for c, config in zip(sweep.cells, configs, strict=True)]
    return replace(sweep, cells=cells)


def plan_cells(
    overrides_by_cell: Sequence[Sequence[str]],
    user_targets: UserTargets,
    name: str | None = None,
) -> Sweep:
    """Compose and check the cells that some overrides describe, for the sweep of a name.

    Raises ConfigError as `plan_sweep`.
    """
    labels = _differences(overrides_by_cell)
    composed_configs = compose_each(dict(enumerate(overrides_by_cell)), user_targets)
    configs = composed_configs.configs
    leaves_out_impossible = any(config.values["skip_impossible"] for config in configs.values())
    if composed_configs.mistakes or (composed_configs.impossible and not leaves_out_impossible):
        faults = [
            fault
            if len(indices) == len(overrides_by_cell)
            else f"{fault}\n    in {len(indices)} of {len(overrides_by_cell)} runs, the first: "
            + " ".join(overrides_by_cell[indices[0]])
            for fault, indices in composed_configs.faults.items()
        ]
        if configs and not composed_configs.mistakes:
            faults.append("skip_impossible=true leaves these runs out and trains the others")
        raise ConfigError(faults)
    if name is not None:
        configs = {
            i: replace(config, values={**config.values, "sweep": name})
            for i, config in configs.items()
        }
    return Sweep(
        [Cell(overrides_by_cell[i], labels[i], config) for i, config in configs.items()],
        len(overrides_by_cell),
        {
            fault: [labels[i] for i in indices]
            for fault, indices in composed_configs.impossible.items()
        },
    )


def _differences(overrides_by_cell: Sequence[Sequence[str]]) -> list[str]:
    """Return the overrides of each cell that not all cells have, as one text."""
    shared = set(overrides_by_cell[0]).intersection(*overrides_by_cell)
    return [
        " ".join(override for override in cell if override not in shared)
        for cell in overrides_by_cell
    ]
