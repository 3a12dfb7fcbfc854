"""How a sweep is trained: the launcher of all its runs, and the cores that they share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from attnlab.config import Config, Sweep, share_cores
from attnlab.errors import RequestError
from attnlab.launch.launcher import Launcher
from attnlab.printable import say_message
from attnlab.run_record.sweep_record import SweepRecord


def launcher_of(configs: Sequence[Config]) -> Launcher:
    """Build the launcher of some runs. Raises RequestError where they do not share one."""
    for key in ("launcher", "runs_dir", "sweep"):
        if len({repr(config.values[key]) for config in configs}) > 1:
            raise RequestError(
                f"{key} says how the whole sweep is trained; give one value, not several"
            )
    return configs[0].build("launcher")


def with_shared_cores(sweep: Sweep, jobs: int) -> Sweep:
    """Return a sweep with the cores shared among runs at once.

    A sweep that has begun keeps the number of threads, as other threads make another run.
    """
    configs = [cell.config for cell in sweep.cells]
    threads = record_of_sweep(configs).threads
    shared_configs = share_cores(configs, jobs, torch.get_num_threads())
    if threads is not None and threads != num_threads(shared_configs):
        say_message(
            f"trainer.threads={threads}, as when the sweep was begun; another number makes other "
            "runs: state it, or give the sweep another name"
        )
        shared_configs = share_cores(configs, 1, threads, always=True)
    cells = [
        replace(cell, config=config)
        for cell, config in zip(sweep.cells, shared_configs, strict=True)
    ]
    return replace(sweep, cells=cells)


def record_of_sweep(configs: Sequence[Config]) -> SweepRecord:
    """Return what stands beside the runs about the sweep of some configs."""
    values = configs[0].values
    return SweepRecord(Path(values["runs_dir"]), values["sweep"])


def num_threads(configs: Sequence[Config]) -> int:
    """Return the number of threads of the first run."""
    return configs[0].values["trainer"].get("threads") or torch.get_num_threads()
