"""`attnlab train`: one run, or a sweep."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml

from attnlab.building import Own
from attnlab.config import Config, cells, compose, search_path
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
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
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configs, first")
    parser.add_argument("--cfg", action="store_true", help="print the config and train nothing")


def run(arguments: Namespace) -> int:
    """Check every cell, then train what is missing."""
    console = Console(soft_wrap=True)
    if arguments.jobs < 1 or (arguments.jobs > 1 and not arguments.multirun):
        raise RequestError(f"--jobs {arguments.jobs} must be at least 1, and above 1 it needs -m")
    with search_path(arguments.config_dir) as own:
        jobs = cells(arguments.overrides) if arguments.multirun else [arguments.overrides]
        configs = _check(jobs, own)
        if arguments.cfg:
            for config in configs:
                say(yaml.safe_dump(config.values, sort_keys=False))
            return 0
        for directory in {Path(config.values["runs_dir"]) for config in configs}:
            _require_writable(directory)
        # Lightning takes seconds to import, so a wrong request is refused before that.
        from attnlab.callbacks.timekeeper import Interrupted
        from attnlab.sweep.sweep import one, sweep

        try:
            if arguments.multirun:
                return sweep(arguments.overrides, len(jobs), own, arguments.jobs, console)
            return one(configs[0], console)
        except Interrupted as interrupted:
            console.print(f"{interrupted}; the same command goes on from there")
            return 130


def _check(jobs: Sequence[Sequence[str]], own: Own) -> list[Config]:
    """Compose all cells; one error lists the faults of all of them, each once."""
    configs: list[Config] = []
    faults: dict[str, list[str]] = {}
    for job in jobs:
        try:
            configs.append(compose(job, own))
        except ConfigError as error:
            for fault in error.faults:
                faults.setdefault(fault, []).append(" ".join(job))
    if faults:
        raise ConfigError(
            [
                fault
                if len(where) == len(jobs)
                else f"{fault}\n    in {len(where)} of {len(jobs)} runs, the first: {where[0]}"
                for fault, where in faults.items()
            ]
        )
    return configs


def _require_writable(directory: Path) -> None:
    """Refuse a place for the runs that cannot hold them, before anything is made."""
    existing = next(d for d in (directory, *directory.absolute().parents) if d.exists())
    if not existing.is_dir():
        raise RequestError(f"runs_dir={directory}: {existing} is a file, not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RequestError(f"runs_dir={directory}: {existing} cannot be written; name another")
