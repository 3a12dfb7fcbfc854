"""`attnlab report`: the comparison of runs and their attention as one HTML file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import drop_damaged, select_runs
from attnlab.building import NO_USER_TARGETS
from attnlab.commands.base import add_selection, require_output_file
from attnlab.commands.options import add_config_dir, path_option
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
    add_config_dir(parser)


def run(arguments: Namespace) -> int:
    """Write the page; its path is the last line."""
    output: Path = arguments.output
    require_output_file(output, (".html", ".htm"))
    user_targets = NO_USER_TARGETS
    if arguments.config_dir is not None:
        # Hydra takes a while to import, and without parts of the user's own nothing needs it.
        from attnlab.config import load_user_targets

        user_targets = load_user_targets(arguments.config_dir)
    selection = drop_damaged(select_runs(arguments.runs, arguments.runs_dir, arguments.where))
    report = comparison(
        selection,
        by=arguments.by,
        metric=arguments.metric,
        baseline=arguments.baseline,
        allow=arguments.allow,
    )
    # The figures take a while to load, so a wrong request is refused before they are imported.
    from attnlab.report.page import report_page

    content = report_page(report.panels, selection.records, report.footnotes, user_targets).encode()
    write.replace_file(output, content)
    say(output)
    return 0
