"""`attnlab sweep`: which sweeps there are, where one stands, try its cells again, stop it.

`--format json` prints the reports of `attnlab.analysis.sweep_status`.
"""

import json
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from attnlab.analysis.sweep_status import (
    SweepList,
    SweepStatus,
    cells_to_retry,
    list_sweeps,
    sweep_status,
)
from attnlab.commands.options import add_config_dir, add_jobs, add_runs_dir
from attnlab.commands.overrides import launcher_overrides
from attnlab.commands.render.sweep import print_status, print_sweeps
from attnlab.console import Console
from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.printable import say
from attnlab.run_record.sweep_record import SweepRecord

EPILOG = """\
  attnlab sweep list                   the sweeps of a directory, and how many runs ended how
  attnlab sweep status NAME            each run: state, step, time left, why it failed
  attnlab sweep retry NAME             train what is not finished, also what was given up
  attnlab sweep cancel NAME            stop the commands that train it; what runs is saved

`attnlab train -m` makes sweeps; sweep=NAME names one.
"""
ACTIONS = ("list", "status", "retry", "cancel")
CAUSES = ("diverged", "memory", "disk", "logger", "error")
FOLLOW_SECONDS, CANCEL_SECONDS = 2.0, 60.0
"""The time between two looks, and how long is waited for what was asked to stop."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab sweep`."""
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the name of the sweep")
    add_runs_dir(parser)
    parser.add_argument("--follow", action="store_true", help="with status: until it has ended")
    parser.add_argument(
        "--cause", nargs="+", choices=CAUSES, default=[], help="with retry: what failed so, alone"
    )
    add_jobs(parser)
    add_config_dir(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """List sweeps, show one, train what it lacks, or stop it."""
    runs_dir = Path(arguments.runs_dir or default_runs_dir())
    if (arguments.name is None) != (arguments.action == "list"):
        expected = "no name" if arguments.action == "list" else "the name of a sweep"
        raise RequestError(f"sweep {arguments.action}: expected {expected}")
    if arguments.action == "list":
        _show(list_sweeps(runs_dir), arguments.format)
        return 0
    status = sweep_status(runs_dir, arguments.name)
    if arguments.action == "retry":
        return _retry(SweepRecord(runs_dir, arguments.name), arguments)
    if arguments.action == "cancel":
        return _cancel(SweepRecord(runs_dir, arguments.name))
    while arguments.follow and status.launches:
        _show(status, arguments.format)
        time.sleep(FOLLOW_SECONDS)
        status = sweep_status(runs_dir, arguments.name)
    _show(status, arguments.format)
    return 0


def _show(report: SweepList | SweepStatus, output_format: str) -> None:
    if output_format == "json":
        say(json.dumps(report.to_json(), indent=2))
    elif isinstance(report, SweepList):
        print_sweeps(report, Console())
    else:
        print_status(report, Console())


def _retry(sweep_record: SweepRecord, arguments: Namespace) -> int:
    """Train the cells that are not finished, or those that failed for some causes."""
    cells = cells_to_retry(sweep_record, arguments.cause)
    console = Console(soft_wrap=True)
    if not cells:
        console.print(f"sweep {sweep_record.name}: no run is to be tried again")
        return 0
    from attnlab.commands.render.outcomes import print_outcomes
    from attnlab.launch.retry_cells import plan_retry, train_planned

    launcher_words = launcher_overrides([], arguments.jobs)
    begins_anew = "diverged" in arguments.cause
    sweep = plan_retry(sweep_record, cells, launcher_words, arguments.config_dir, begins_anew)
    try:
        return print_outcomes(train_planned(sweep, console), sweep.name, 0, console)
    except Interrupted as interrupted:
        console.print(f"{interrupted}; the same command goes on from there")
        return 130


def _cancel(sweep_record: SweepRecord) -> int:
    """Stop the commands that train a sweep, and wait until they have saved what runs."""
    launches = [launch for launch in sweep_record.launches if launch.is_running]
    for launch in launches:
        launch.cancel()
    deadline = time.monotonic() + CANCEL_SECONDS
    while any(launch.is_running for launch in launches) and time.monotonic() < deadline:
        time.sleep(0.2)
    for launch in launches:
        place = f"process {launch.claim['pid']} on {launch.claim['host']}"
        say(f"{place}: {'was asked, and has not stopped yet' if launch.is_running else 'stopped'}")
    say(f"sweep {sweep_record.name}: {len(launches) or 'no'} commands were training it")
    return 1 if any(launch.is_running for launch in launches) else 0
