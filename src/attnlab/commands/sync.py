"""`attnlab sync`: send finished runs to wandb, TensorBoard or CSV files, each of them once.

`--format json` prints the report of `attnlab.launch.sync`.
"""

import json
from argparse import ArgumentParser, Namespace
from functools import partial

from attnlab.analysis.select import select_runs
from attnlab.commands.options import add_runs, path_option
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.places import require_writable
from attnlab.printable import say

TOOLS = ("wandb", "tensorboard", "csv")
WANDB_OPTIONS = ("project", "mode", "group", "tags", "notes")
"""The options that only wandb has."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab sync`."""
    add_runs(parser)
    parser.add_argument("--to", required=True, choices=TOOLS, help="the tool that gets a copy")
    parser.add_argument(
        "--dir",
        type=path_option,
        metavar="DIR",
        help="where copies go; default: into each run, as while it trains",
    )
    parser.add_argument("--project", metavar="[ENTITY/]PROJECT", help="wandb; default: attnlab")
    parser.add_argument(
        "--mode", choices=("offline", "online"), help="wandb; default: offline, without an account"
    )
    parser.add_argument("--group", help="wandb; default: the sweep of the run")
    parser.add_argument(
        "--tags", nargs="+", metavar="TAG", help="wandb; default: variant and dataset"
    )
    parser.add_argument("--notes", help="wandb")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Send the runs, a line for each; 1 if one of them failed."""
    wandb_knobs = {
        name: getattr(arguments, name)
        for name in WANDB_OPTIONS
        if getattr(arguments, name) is not None
    }
    if arguments.to != "wandb" and wandb_knobs:
        raise RequestError(f"--{next(iter(wandb_knobs))} is for --to wandb, not {arguments.to}")
    if arguments.dir is not None:
        require_writable(arguments.dir, "--dir")
    selection = select_runs(arguments.runs, arguments.runs_dir, arguments.where)
    # Lightning takes seconds to import, so a wrong request is refused before that.
    from attnlab.commands.render.sync import print_summary, sync_line
    from attnlab.launch.sync import SyncReport, logger_for, sync_runs

    is_online = wandb_knobs.pop("mode", "offline") == "online"
    logger, upload = logger_for(arguments.to, **wandb_knobs), None
    if is_online:
        from attnlab.logger.wandb import require_server, upload_runs

        require_server()
        upload = partial(upload_runs, destination=str(logger.destination))
    is_table, console = arguments.format == "table", Console(soft_wrap=True)
    total, synced_runs = len(selection.records), []
    for synced_run in sync_runs(selection, logger, arguments.dir, upload):
        synced_runs.append(synced_run)
        if is_table:
            progress = f"{len(synced_runs):>{len(str(total))}}/{total}"
            console.print(f"[{progress}] {sync_line(synced_run)}")
    report = SyncReport(arguments.to, logger.destination, synced_runs, selection.left_out)
    if is_table:
        print_summary(report, console, is_online)
    else:
        say(json.dumps(report.to_json(), indent=2))
    return 0 if report.ok else 1
