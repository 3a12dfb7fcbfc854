"""`attnlab evaluate`: evaluate a trained run on another split, or on other data.

`--format json` prints the report of `attnlab.analysis.evaluation_report`.
"""

import json
from argparse import ArgumentParser, Namespace

from rich.table import Table

from attnlab.analysis.evaluation_report import EvaluationReport, evaluation_report
from attnlab.commands.base import add_run, load_run
from attnlab.console import Console
from attnlab.printable import say


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab evaluate`."""
    add_run(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="dataset.KEY=VALUE", help="changes to the data"
    )
    parser.add_argument("--split", metavar="SPLIT", help="default: test, where there is one")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Evaluate a run, and print the loss (nats) and the metrics."""
    loaded = load_run(
        arguments.run,
        runs_dir=arguments.runs_dir,
        config_dir=arguments.config_dir,
        overrides=arguments.overrides,
    )
    report = evaluation_report(loaded, arguments.split, arguments.overrides)
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2))
    else:
        _print_report(report, Console())
    return 0


def _print_report(report: EvaluationReport, console: Console) -> None:
    """Print the run, the data and a row for each metric."""
    changes = f" with {' '.join(report.overrides)}" if report.overrides else ""
    console.print(f"{report.run}, step {report.step}", style="bold")
    console.print(f"{report.split} split, {report.examples} examples{changes}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in report.metrics.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if report.overrides:
        console.print("These data were drawn anew: the run may have been trained on some of them.")
