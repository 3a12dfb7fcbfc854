"""`attnlab train`: one run, or a sweep."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

from attnlab.building import UserTargets
from attnlab.commands.options import add_config_dir
from attnlab.config import Config, cells, compose_each, search_path, threads_each
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.interruption import Interrupted
from attnlab.places import require_writable
from attnlab.printable import say

EPILOG = """\
examples:
  attnlab train dataset=mqar variant=multihead depth=base
  attnlab train -m variant=vanilla,multihead,moe,lstm depth=shallow,base seed=0,1,2
  attnlab train dataset=mqar --cfg          what would be trained

`attnlab list` shows what can be chosen. The same command again resumes what was
interrupted and skips what is finished.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab train`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over a,b,c values")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="runs at once")
    add_config_dir(parser)
    parser.add_argument("--cfg", action="store_true", help="print the config and train nothing")


def run(arguments: Namespace) -> int:
    """Check every cell, then train what is missing."""
    console = Console(soft_wrap=True)
    jobs = arguments.jobs
    if jobs < 1 or (jobs > 1 and not arguments.multirun):
        raise RequestError(f"--jobs {jobs} must be at least 1, and above 1 it needs -m")
    with search_path(arguments.config_dir) as own:
        overrides = list(arguments.overrides)
        if jobs > 1:
            import torch

            overrides += threads_each(overrides, jobs, torch.get_num_threads())
        configs = _compose(cells(overrides) if arguments.multirun else [overrides], own)
    for note in (note for config in configs for note in config.notes):
        say(note, file=sys.stderr)
    if arguments.cfg:
        for config in configs:
            say(yaml.safe_dump(config.values, sort_keys=False))
        return 0
    for directory in {Path(config.values["runs_dir"]) for config in configs}:
        require_writable(directory, "runs_dir")
    # Lightning takes seconds to import, so a wrong request is refused before that.
    try:
        return (
            _train_sweep(configs, jobs, console)
            if arguments.multirun
            else _train_one(configs[0], console)
        )
    except Interrupted as interrupted:
        console.print(f"{interrupted}; the same command goes on from there")
        return 130


def _train_one(config: Config, console: Console) -> int:
    """Train one run and print its metrics; its directory is the last line."""
    from attnlab.launch import show
    from attnlab.launch.run import run

    outcome = run(config, console)
    if outcome.note:
        console.print(f"{outcome.status}: {outcome.note}")
    if outcome.result is not None:
        console.print(show.metrics(outcome.result))
    say(outcome.directory)
    return {"finished": 0, "skipped": 0, "failed": 1}.get(outcome.status, 2)


def _train_sweep(configs: Sequence[Config], jobs: int, console: Console) -> int:
    """Train every cell, and say at the end how many ended how, and which were not done."""
    from attnlab.launch import show
    from attnlab.launch.many import launcher_for, many

    outcomes, total = [], len(configs)
    for index, outcome in many(configs, console, launcher_for(jobs)):
        outcomes.append(outcome)
        console.print(f"[{index + 1:>{len(str(total))}}/{total}] {show.line(outcome)}")
    console.print(f"{total} runs: {show.counts(outcomes)}")
    for outcome in outcomes:
        if not outcome.ok:
            console.print(f"  {outcome.status}: {outcome.directory}: {outcome.note}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def _compose(cells: Sequence[Sequence[str]], own: UserTargets) -> list[Config]:
    """Compose all cells; one error lists the faults of all of them, each once."""
    configs, faults = compose_each(dict(enumerate(cells)), own)
    if faults:
        raise ConfigError(
            [
                fault
                if len(indices) == len(cells)
                else f"{fault}\n    in {len(indices)} of {len(cells)} runs, the first: "
                + " ".join(cells[indices[0]])
                for fault, indices in faults.items()
            ]
        )
    return list(configs.values())
