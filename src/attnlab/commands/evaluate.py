"""`attnlab evaluate`: a trained run on another split, or on other data.

`--format json` prints one object: schema, run, step, split, examples, overrides, metrics.
"""

import json
from argparse import ArgumentParser, Namespace

from rich.table import Table

from attnlab.commands.base import add_run, trained
from attnlab.console import Console
from attnlab.printable import say

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab evaluate`."""
    add_run(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="dataset.KEY=VALUE", help="changes to the data"
    )
    parser.add_argument("--split", metavar="SPLIT", help="default: test, where there is one")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print loss (nats) and metrics."""
    loaded = trained(arguments, arguments.overrides)
    split = arguments.split or loaded.dataset.reported
    metrics = loaded.evaluate(split)
    found = {
        "schema": SCHEMA,
        "run": loaded.record.name,
        "step": loaded.step,
        "split": split,
        "examples": len(loaded.dataset.splits[split]),
        "overrides": list(arguments.overrides),
        "metrics": metrics,
    }
    if arguments.format == "json":
        say(json.dumps(found, indent=2))
        return 0
    console = Console()
    with_changes = f" with {' '.join(arguments.overrides)}" if arguments.overrides else ""
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    console.print(f"{split} split, {found['examples']} examples{with_changes}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if arguments.overrides:
        console.print("These data were drawn anew: the run may have been trained on some of them.")
    return 0
