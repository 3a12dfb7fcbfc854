"""`attnlab attend`: which tokens of a text attend to which, and the answer with an edge cut.

The terminal and `--format json` show the report of `attnlab.analysis.attention_report`.

`-o FILE` writes a file instead; the ending of its name decides the kind:
- .html: a page in which query and head can be chosen, and which opens at the same head;
- .png, .svg, .pdf: heat maps for print, of the layer and head, or of all of them by default;
- .npz: all maps as arrays, SOURCE (head, query, key), SOURCE.tokens (the keys) and SOURCE.queries;
- .json: the same as `--format json`.

`--format bertviz` and `circuitsvis` print these programs' arguments (`commands.render.programs`).
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.attention_maps import VIEWS
from attnlab.analysis.attention_report import AttentionReport, attention_report, query_position
from attnlab.analysis.export_patterns import to_npz
from attnlab.commands.base import HOW, add_run, load_run, require_picture
from attnlab.commands.options import path_option
from attnlab.commands.render import attention
from attnlab.commands.render.programs import PROGRAMS, for_program
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.printable import say
from attnlab.run_record import write

PICTURES, FILES = (".png", ".svg", ".pdf"), (".html", ".npz", ".json")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab attend`."""
    add_run(parser, required=False)
    parser.add_argument("text", metavar="TEXT", nargs="?")
    parser.add_argument(
        "--query",
        metavar="TOKEN|POSITION",
        help="a token (the last, if it stands there twice) or its position; default: where the "
        "answer is",
    )
    parser.add_argument(
        "--layer",
        metavar="LAYER",
        help="a number as in `ablate`, a path, or `answer` for influence; default: that of "
        "the sharpest head, else of the sharpest mixing matrix, else `answer`",
    )
    parser.add_argument(
        "--head", metavar="HEAD", help="a number, or `mean`; default: the sharpest at the query"
    )
    parser.add_argument(
        "--view",
        choices=VIEWS,
        default="weights",
        help="weights, lengths of what is read (norms), what is in each position after each layer "
        "(rollout), or what can be there (flow); default: weights",
    )
    parser.add_argument("--map", action="store_true", help="the heat map alone, with all rows")
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="FILE",
        help="write instead: a page (.html), heat maps for print (.png, .svg, .pdf), arrays "
        "(.npz), or .json",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json", *PROGRAMS),
        default="table",
        help="json: all numbers; bertviz, circuitsvis: the arguments that these take",
    )


def run(arguments: Namespace) -> int:
    """Print a heat map, the row of the query in every head, and the answer without its edges."""
    if arguments.text is None:
        raise RequestError(f'expected a run and a text: attnlab attend RUN "TEXT"; {HOW}')
    _require_compatible_options(arguments)
    content = _build_output(arguments)
    if arguments.output is not None:
        write.replace_file(arguments.output, content)
        say(arguments.output)
    else:
        say(content.decode(), end="")
    return 0


def _require_compatible_options(arguments: Namespace) -> None:
    """Raise RequestError for incompatible options, before the run is loaded."""
    output, form = arguments.output, arguments.format
    ending = None if output is None else output.suffix
    if output is not None:
        require_picture(output, (*FILES, *PICTURES))
        if form != "table" and ending != ".json":
            raise RequestError(
                f"--output {output} and --format {form} are two forms; choose one, or name a .json"
            )
    if arguments.map and (output is not None or form != "table"):
        raise RequestError("--map is for the terminal; leave it out with --output and --format")
    if (arguments.layer, arguments.head) != (None, None) and (form != "table" or ending in FILES):
        raise RequestError(
            "--layer and --head choose what the terminal or a picture shows; other forms have all"
        )
    if arguments.view != "weights" and (form in PROGRAMS or ending in (".html", ".npz")):
        raise RequestError(
            f"--view {arguments.view} is for the terminal, a picture and json; other forms have "
            "the weights"
        )


def _build_output(arguments: Namespace) -> bytes:
    """Return the output as bytes; a table is printed directly, and nothing is returned."""
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    text = arguments.text
    ending = None if arguments.output is None else arguments.output.suffix
    if arguments.format in PROGRAMS or ending == ".npz":
        captured, patterns = loaded.capture(text)
        query_position(arguments.query, patterns[-1].tokens, patterns[-1].answer_position)
        if ending == ".npz":
            attention_patterns = [p for p in patterns if p.attention is not None]
            return to_npz([*attention_patterns, *loaded.mixing_patterns(text, captured)])
        return for_program(arguments.format, patterns, loaded.record.name)
    layer, head, view = arguments.layer, arguments.head, arguments.view
    as_json = ending == ".json" or arguments.format == "json"
    report = attention_report(loaded, text, arguments.query, layer, head, view, maps=as_json)
    if as_json:
        return json.dumps(report.to_json(), indent=2).encode() + b"\n"
    if ending == ".html":
        return _build_page(report)
    if ending is not None:
        return attention.picture(report, ending, all_heads=(layer, head) == (None, None))
    attention.print_attention(report, Console(), query=arguments.query, map_alone=arguments.map)
    return b""


def _build_page(report: AttentionReport) -> bytes:
    """Return the HTML page, which opens at the head that the terminal shows."""
    from attnlab.report.page import attend_page

    patterns, opening_head = report.patterns, None
    for pattern in patterns:
        if pattern.attention is not None and pattern.source == report.shown.source:
            opening_head = (pattern.layer, report.shown.head)
    caption = " ".join(attention.caption(report))
    return attend_page(
        patterns, caption, report.run, query=report.query, opening_head=opening_head
    ).encode()
