"""`attnlab compare`: runs over seeds, with intervals and paired differences.

All formats show the report of `attnlab.analysis.compare`.
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select_runs
from attnlab.commands.base import add_selection
from attnlab.commands.render.comparison import print_comparison
from attnlab.commands.render.comparison_formats import FORMATS
from attnlab.console import Console
from attnlab.printable import say


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab compare`."""
    add_selection(parser)
    parser.add_argument(
        "--format",
        choices=("table", "json", *FORMATS),
        default="table",
        help="latex for a paper (booktabs), csv with raw numbers; default: table",
    )


def run(arguments: Namespace) -> int:
    """Print the comparison."""
    report = comparison(
        select_runs(arguments.runs, arguments.runs_dir, arguments.where),
        by=arguments.by,
        metric=arguments.metric,
        baseline=arguments.baseline,
        allow=arguments.allow,
    )
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2))
    elif arguments.format in FORMATS:
        say(FORMATS[arguments.format](report))
    else:
        print_comparison(report, Console())
    return 0
