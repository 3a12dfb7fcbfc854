"""One run or many: what is printed, and the exit code."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from attnlab.building import Own
from attnlab.config import Config, check
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.printable import say
from attnlab.sweep.run import Outcome, run


def one(config: Config, console: Console) -> int:
    """Train one run and print its metrics; its directory is the last line."""
    outcome = run(config, console)
    if outcome.note:
        console.print(f"{outcome.status}: {outcome.note}")
    if outcome.ok:
        console.print(_metrics(outcome))
    say(outcome.directory)
    return {"finished": 0, "skipped": 0, "failed": 1}.get(outcome.status, 2)


def sweep(overrides: Sequence[str], total: int, own: Own, jobs: int, console: Console) -> int:
    """Train every cell by Hydra's launcher; a cell that fails does not stop the others.

    With several `jobs`, each runs in a process of its own, with its share of the cores.
    """
    if jobs > 1:
        share = max(1, torch.get_num_threads() // jobs)
        told = any(word.startswith("trainer.threads=") for word in overrides)
        parallel = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]
        overrides = [*overrides, *parallel, *([] if told else [f"trainer.threads={share}"])]
    job = partial(_cell, total=total, own=own, alone=jobs == 1)
    # A partial has no name, which Hydra asks its task function for.
    job.__name__ = "attnlab"  # pyright: ignore[reportAttributeAccessIssue]
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    returned = hydra.multirun("train", job, list(overrides), with_log_configuration=False)
    outcomes: list[Outcome] = [job.return_value for batch in returned for job in batch]
    counts = {
        s: sum(o.status == s for o in outcomes) for s in dict.fromkeys(o.status for o in outcomes)
    }
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(outcomes)} runs: {told}")
    for outcome in outcomes:
        if not outcome.ok:
            console.print(f"  {outcome.status}: {outcome.directory}: {outcome.note}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def _cell(composed: DictConfig, *, total: int, own: Own, alone: bool) -> Outcome:
    hydra = HydraConfig.get()
    # Bars of several processes would write over each other.
    console = Console(soft_wrap=True, force_terminal=None if alone else False)
    config, _ = check(composed, hydra.runtime.choices, own)
    try:
        outcome = run(config, console)
    except RequestError as error:
        outcome = Outcome(Path(config.values["runs_dir"]), "refused", note=str(error))
    number = f"{hydra.job.num + 1:>{len(str(total))}}/{total}"
    console.print(f"[{number}] {_line(outcome)}")
    return outcome


def _line(outcome: Outcome) -> str:
    summary = outcome.summary
    if not outcome.ok:
        return f"{outcome.directory.name}  {outcome.status}: {outcome.note}"
    headline = summary["headline"]
    text = f"{outcome.directory.name}  {headline} {summary['metrics'][headline]:.3f}"
    if outcome.status == "skipped":
        return f"{text}  skipped: {outcome.note}"
    return f"{text}  {summary['seconds']:.1f} s"


def _metrics(outcome: Outcome) -> Table:
    summary: Any = outcome.summary
    reported = summary["headline"].split("/", 1)[0]
    parts = (name.split("/", 1) for name in summary["metrics"])
    names = dict.fromkeys(name for split, name in parts if split == reported)
    shown = [name for name in names if "." not in name and "@" not in name]
    table = Table(box=None, pad_edge=False)
    for name in ("split", *shown):
        table.add_column(Text(name))
    splits = {name.split("/", 1)[0] for name in summary["metrics"] if name.startswith("test_")}
    for split in dict.fromkeys(("validation", reported, *sorted(splits))):
        values = (summary["metrics"].get(f"{split}/{name}") for name in shown)
        table.add_row(split, *("-" if value is None else f"{value:.4f}" for value in values))
    return table
