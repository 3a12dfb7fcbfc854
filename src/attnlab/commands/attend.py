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
from attnlab.commands.base import RUN_HINT, add_run, load_run, require_output_file
from attnlab.commands.options import path_option
from attnlab.commands.render import attention
from attnlab.commands.render.programs import PROGRAMS, encode_for_program
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.loaded_run import LoadedRun
from attnlab.printable import say
from attnlab.run_record import write

PICTURES, FILES = (".png", ".svg", ".pdf"), (".html", ".npz", ".json")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab attend`."""
    add_run(parser, required=False)
    parser.add_argument("text", metavar="TEXT", nargs="?")
    query_help = (
        "a token (the last, if it stands there twice) or its position; default: where the answer is"
    )
    parser.add_argument("--query", metavar="TOKEN|POSITION", help=query_help)
    layer_help = (
        "a number as in `ablate`, a path, or `answer` for influence; default: that of the "
        "sharpest head, else of the sharpest mixing matrix, else `answer`"
    )
    parser.add_argument("--layer", metavar="LAYER", help=layer_help)
    head_help = "a number, or `mean`; default: the sharpest at the query"
    parser.add_argument("--head", metavar="HEAD", help=head_help)
    view_help = (
        "weights, lengths of what is read (norms), what is in each position after each layer "
        "(rollout), or what can be there (flow); default: weights"
    )
    parser.add_argument("--view", choices=VIEWS, default="weights", help=view_help)
    parser.add_argument("--map", action="store_true", help="the heat map alone, with all rows")
    output_help = (
        "write instead: a page (.html), heat maps for print (.png, .svg, .pdf), arrays (.npz), "
        "or .json"
    )
    parser.add_argument("-o", "--output", type=path_option, metavar="FILE", help=output_help)
    format_help = "json: all numbers; bertviz, circuitsvis: the arguments that these take"
    formats = ("table", "json", *PROGRAMS)
    parser.add_argument("--format", choices=formats, default="table", help=format_help)


def run(arguments: Namespace) -> int:
    """Print a heat map, the row of the query in every head, and the answer without its edges."""
    if arguments.text is None:
        raise RequestError(f'expected a run and a text: attnlab attend RUN "TEXT"; {RUN_HINT}')
    _require_compatible_options(arguments)
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    ending = None if arguments.output is None else arguments.output.suffix
    if arguments.format in PROGRAMS or ending == ".npz":
        content = _encode_patterns(arguments, loaded)
    else:
        layer, head, view = arguments.layer, arguments.head, arguments.view
        as_json = ending == ".json" or arguments.format == "json"
        report = attention_report(
            loaded, arguments.text, arguments.query, layer, head, view, maps=as_json
        )
        if ending is None and not as_json:
            attention.print_attention(
                report, Console(), query=arguments.query, map_alone=arguments.map
            )
            return 0
        all_heads = (layer, head) == (None, None)
        content = _encode_report(report, ".json" if as_json else f"{ending}", all_heads=all_heads)
    if arguments.output is None:
        say(content.decode(), end="")
    else:
        write.replace_file(arguments.output, content)
        say(arguments.output)
    return 0


def _require_compatible_options(arguments: Namespace) -> None:
    """Raise RequestError for incompatible options, before the run is loaded."""
    output, output_format = arguments.output, arguments.format
    ending = None if output is None else output.suffix
    if output is not None:
        require_output_file(output, (*FILES, *PICTURES))
        if output_format != "table" and ending != ".json":
            raise RequestError(
                f"--output {output} and --format {output_format} are two forms; choose one, or "
                "name a .json"
            )
    if arguments.map and (output is not None or output_format != "table"):
        raise RequestError("--map is for the terminal; leave it out with --output and --format")
    if (arguments.layer, arguments.head) != (None, None) and (
        output_format != "table" or ending in FILES
    ):
        raise RequestError(
            "--layer and --head choose what the terminal or a picture shows; other forms have all"
        )
    if arguments.view != "weights" and (output_format in PROGRAMS or ending in (".html", ".npz")):
        raise RequestError(
            f"--view {arguments.view} is for the terminal, a picture and json; other forms have "
            "the weights"
        )


def _encode_patterns(arguments: Namespace, loaded: LoadedRun) -> bytes:
    """Return the patterns of the text as arrays, or as the arguments of another program."""
    captured, patterns = loaded.capture(arguments.text)
    query_position(arguments.query, patterns[-1].tokens, patterns[-1].answer_position)
    if arguments.format in PROGRAMS:
        return encode_for_program(arguments.format, patterns, loaded.record.name)
    attention_patterns = [p for p in patterns if p.attention is not None]
    return to_npz([*attention_patterns, *loaded.mixing_patterns(arguments.text, captured)])


def _encode_report(report: AttentionReport, ending: str, *, all_heads: bool) -> bytes:
    """Return the report as the content of a file with such an ending."""
    if ending == ".json":
        return json.dumps(report.to_json(), indent=2).encode() + b"\n"
    if ending == ".html":
        return _build_page(report)
    return attention.draw_attention(report, ending, all_heads=all_heads)


def _build_page(report: AttentionReport) -> bytes:
    """Return the HTML page, which opens at the head that the terminal shows."""
    from attnlab.report.page import attend_page

    patterns, opening_head = report.patterns, None
    for pattern in patterns:
        if pattern.attention is not None and pattern.source == report.shown.source:
            opening_head = (pattern.layer, report.shown.head)
    caption = " ".join(attention.caption_lines(report))
    return attend_page(
        patterns, caption, report.run, query=report.query, opening_head=opening_head
    ).encode()
