r"""`attnlab embed`: the token embeddings of a trained run, and which of them are similar.

`--format json` prints one object, whose fields are those of
`attnlab.analysis.embedding_report.EmbeddingReport`: schema, run, step, neighbours [{"token",
"near": [{"token", "cosine"}]}]. In exported files, control characters of a token are escaped, as in
\n and \x00.
"""

import json
from argparse import ArgumentParser, Namespace

from attnlab.analysis.embedding_report import (
    NEAR,
    NEAR_ONE,
    embedding_history,
    embedding_plane,
    embedding_report,
    encode_embedding_file,
)
from attnlab.commands.base import add_run, load_run, require_output_file
from attnlab.commands.options import path_option
from attnlab.commands.render.embeddings import (
    draw_history,
    draw_plane,
    show_history,
    show_neighbours,
    show_neighbours_of_one,
)
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.loaded_run import LoadedRun
from attnlab.printable import say
from attnlab.run_record import write

PICTURES, TABLES = (".html", ".pdf", ".png", ".svg"), (".npz", ".csv", ".tsv")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab embed`."""
    add_run(parser)
    parser.add_argument(
        "--neighbours", metavar="WORD", help="a token; default: the most frequent ones"
    )
    parser.add_argument(
        "-k",
        type=int,
        metavar="N",
        help=f"so many neighbours; default: {NEAR_ONE} of a WORD, {NEAR} otherwise",
    )
    parser.add_argument(
        "--project",
        type=path_option,
        metavar="FILE",
        help=f"draw all on their first two principal components: {', '.join(PICTURES)}",
    )
    parser.add_argument(
        "--history",
        type=path_option,
        metavar="FILE",
        help=f"draw how those that were recorded came there over training: {', '.join(PICTURES)}",
    )
    parser.add_argument(
        "--export", type=path_option, metavar="FILE", help=f"write all down: {', '.join(TABLES)}"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print neighbours, or write the requested files, whose paths are the last lines."""
    _require_valid_options(arguments)
    project, history, export = arguments.project, arguments.history, arguments.export
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    if arguments.neighbours is not None or not (project or history or export):
        _print_neighbours(arguments, loaded)
    if project is not None:
        write.replace_file(project, draw_plane(embedding_plane(loaded), project.suffix))
        say(project)
    if history is not None:
        history_report = embedding_history(loaded)
        show_history(Console(), history_report)
        write.replace_file(history, draw_history(history_report, history.suffix))
        say(history)
    if export is not None:
        write.replace_file(export, encode_embedding_file(loaded.embeddings, export.suffix))
        say(export)
    return 0


def _require_valid_options(arguments: Namespace) -> None:
    """Raise RequestError for files that cannot be written, and for fewer than one neighbour."""
    endings_by_option = {"project": PICTURES, "history": PICTURES, "export": TABLES}
    for name, endings in endings_by_option.items():
        path = getattr(arguments, name)
        if path is not None:
            require_output_file(path, endings, arguments.format, f"--{name}")
    if arguments.k is not None and arguments.k < 1:
        raise RequestError(f"-k {arguments.k} must be at least 1")


def _print_neighbours(arguments: Namespace, loaded: LoadedRun) -> None:
    """Print the nearest tokens of one word, or of the most frequent ones."""
    report = embedding_report(loaded, arguments.neighbours, arguments.k)
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        show = show_neighbours if arguments.neighbours is None else show_neighbours_of_one
        show(Console(), report, loaded.embeddings)
