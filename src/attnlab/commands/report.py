"""`attnlab report`: the comparison of runs and their attention as one HTML file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select_runs, without_damage
from attnlab.commands.base import add_selection, require_picture
from attnlab.commands.options import path_option
from attnlab.printable import say
from attnlab.run_record import write


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab report`."""
    add_selection(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        default=Path("report.html"),
        metavar="FILE",
        help="default: report.html",
    )


def run(arguments: Namespace) -> int:
    """Write the page; its path is the last line."""
    output: Path = arguments.output
    require_picture(output, (".html", ".htm"))
    selection = without_damage(select_runs(arguments.runs, arguments.runs_dir))
    comparison_report = comparison(
        selection,
        by=arguments.by,
        metric=arguments.metric,
        baseline=arguments.baseline,
        allow=arguments.allow,
    )
    # The figures take a while to load, so a wrong request is refused before they are imported.
    from attnlab.report.page import page

    write.replace(
        output,
        page(comparison_report.panels, selection.records, comparison_report.left_out).encode(),
    )
    say(output)
    return 0
