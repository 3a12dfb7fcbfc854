"""`attnlab experts`: which experts of a trained run process which tokens.

`--format json` prints the fields of `attnlab.analysis.expert_report.ExpertReport` (docs/json.md).
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.expert_report import TOKENS, expert_report
from attnlab.commands.base import add_run, load_run, require_output_file
from attnlab.commands.options import path_option
from attnlab.commands.render.experts import draw_expert_load, draw_token_experts, show_report
from attnlab.console import Console
from attnlab.printable import say
from attnlab.run_record import write

PICTURES = (".pdf", ".png", ".svg")
NUM_DRAWN_TOKENS = 24
"""The number of tokens in a picture."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab experts`."""
    add_run(parser)
    parser.add_argument(
        "--split", metavar="SPLIT", default="validation", help="default: validation"
    )
    parser.add_argument("--layer", type=int, metavar="N", help="this layer of experts, from 0")
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="FILE",
        help="draw the load of all layers, or the tokens of --layer: " + ", ".join(PICTURES),
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print or draw the load and the tokens of each layer's experts; a path is the last line."""
    output, layer = arguments.output, arguments.layer
    if output is not None:
        require_output_file(output, PICTURES, arguments.format)
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    num_tokens = TOKENS if output is None else NUM_DRAWN_TOKENS
    report = expert_report(loaded, arguments.split, layer, num_tokens=num_tokens)
    if output is not None:
        draw = draw_expert_load if layer is None else draw_token_experts
        write.replace_file(output, draw(report, output.suffix))
        say(output)
    elif arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        show_report(Console(), report)
    return 0
