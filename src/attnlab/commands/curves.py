"""`attnlab curves`: a metric over training, arm by arm, as a figure."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import drop_damaged, select_runs
from attnlab.commands.base import add_selection, require_output_file
from attnlab.commands.options import path_option
from attnlab.printable import say, say_message
from attnlab.run_record import write

AXES = ("steps", "tokens", "flops", "seconds")
ENDINGS = (".svg", ".pdf", ".png", ".html", ".htm")
EPILOG = """\
examples:
  attnlab curves 'pronoun-*' -o curves.pdf
  attnlab curves --metric validation/loss --x tokens --log-x -o loss.svg
  attnlab curves --metric train/loss --log-y --smooth 15 -o loss.svg
  attnlab curves --by model.mixer --allow mixed -o curves.html

A band is drawn for three seeds or more. Of more than eight arms, the best eight have colours.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab curves`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    add_selection(parser, metric_help="as in validation/loss; default: the main one, on validation")
    parser.add_argument("--x", choices=AXES, default="steps", help="default: steps")
    parser.add_argument("--log-x", action="store_true", help="a logarithmic x axis")
    parser.add_argument("--log-y", action="store_true", help="a logarithmic y axis")
    parser.add_argument(
        "--smooth",
        type=int,
        default=1,
        metavar="N",
        help="running mean of N points, an odd number; default: the values as recorded",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        default=Path("curves.svg"),
        metavar="FILE",
        help=f"ends in one of {', '.join(ENDINGS[:4])}; default: curves.svg",
    )


def run(arguments: Namespace) -> int:
    """Write the figure; its path is the last line."""
    output: Path = arguments.output
    require_output_file(output, ENDINGS)
    selection = drop_damaged(select_runs(arguments.runs, arguments.runs_dir, arguments.where))
    report = comparison(
        selection, by=arguments.by, baseline=arguments.baseline, allow=arguments.allow
    )
    # The figures take a while to load, so a wrong request is refused before they are imported.
    from attnlab.commands.render.curves import render_curves
    from attnlab.report.learning_curves import Over

    over = Over(arguments.x, arguments.log_x, arguments.log_y, arguments.smooth)
    content = render_curves(report, selection.records, arguments.metric, over, output.suffix)
    write.replace_file(output, content)
    for footnote in report.footnotes:
        say_message(footnote)
    say(output)
    return 0
