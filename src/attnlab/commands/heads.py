"""`attnlab heads`: the measures of every head, over training and over seeds.

A single RUN is shown by itself, finished or not. Of several runs, those that differ only in their
seed are a group, as in `attnlab compare`: their heads are matched
(`attnlab.analysis.head_matching`) before any number is averaged. `--format json` prints one object
with the fields of `attnlab.analysis.head_report.HeadReport`; a value that was not measured or not
requested is null:

    {"schema": 2, "runs": [RUN], "groups": [GROUP], "left_out": [{"run", "state", "reason"}]}
    RUN     run, step (the last measured), measure (of the history), layers [{"layer" (from 0,
            null: unknown), "name", "heads": [{"head", "scores": {measure: number}, "roles":
            [ROLE]}], "history": {"steps", "values" (for each step, for each head)}}], findings
            {evidence: {name: {"head": {"layer", "head"}, "role", "weight", "without": {removed
            part: share of right answers without it}}}}
    GROUP   label, runs, seeds, reference (the run whose numbering of heads is used), step (of the
            patterns that were matched), measured (the step of the measures), layers [{"layer",
            "name", "apart" (mean of the heads), "chance" (mean of all pairs), "heads": [{"head",
            "of" (its number in each run), "apart", "measures": {measure: {"n", "mean", "low",
            "high"}}, "roles": [ROLE] (of the means)}]}]
    ROLE    role, measure, threshold, source; since: the first measured step from which on the score
            stays above the threshold (null for means)
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.head_report import head_histories, head_report
from attnlab.analysis.select import select_any
from attnlab.commands.base import require_picture
from attnlab.commands.options import add_runs_dir, path_option
from attnlab.commands.render.heads import picture, show_report
from attnlab.console import Console
from attnlab.printable import say
from attnlab.run_record import write

PICTURES = (".html", ".pdf", ".png", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab heads`."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="directories, prefixes or patterns of names"
    )
    add_runs_dir(parser)
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
    output, measure = arguments.output, arguments.measure
    if output is not None:
        require_picture(output, PICTURES, arguments.format)
    selection = select_any(arguments.runs, arguments.runs_dir)
    if output is not None:
        write.replace(output, picture(head_histories(selection, measure), measure, output.suffix))
        say(output)
        return 0
    report = head_report(selection, measure)
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        show_report(Console(), report)
    return 0
