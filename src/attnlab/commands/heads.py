"""`attnlab heads`: the measures of every head, over training and over seeds.

A single RUN is shown by itself, finished or not. Of several runs, those that differ only in their
seed are a group, as in `attnlab compare`: their heads are matched
(`attnlab.analysis.head_matching`) before any number is averaged. `--format json` prints the
fields of `attnlab.analysis.head_report.HeadReport` (docs/json.md).
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.head_report import head_histories, head_report
from attnlab.analysis.head_table import measure_of_header
from attnlab.analysis.select import select_undamaged
from attnlab.commands.base import require_output_file
from attnlab.commands.options import add_runs, path_option
from attnlab.commands.render.heads import draw_head_curves, show_report
from attnlab.console import Console
from attnlab.printable import say
from attnlab.run_record import write

PICTURES = (".html", ".pdf", ".png", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab heads`."""
    add_runs(parser)
    parser.add_argument(
        "--measure",
        metavar="NAME",
        help="the history of one measure, of one run; drift is how far heads moved since the "
        "recorded step before",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="FILE",
        help=f"draw measures of one run over its steps: {', '.join(PICTURES)}",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the heads, or draw them."""
    output, measure = arguments.output, measure_of_header(arguments.measure)
    if output is not None:
        require_output_file(output, PICTURES, arguments.format)
    selection = select_undamaged(arguments.runs, arguments.runs_dir, arguments.where)
    if output is not None:
        write.replace_file(
            output, draw_head_curves(head_histories(selection, measure), measure, output.suffix)
        )
        say(output)
        return 0
    report = head_report(selection, measure)
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        show_report(Console(), report)
    return 0
