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
    embedding_table,
)
from attnlab.commands.base import add_run, load_run, require_picture
from attnlab.commands.options import path_option
from attnlab.commands.render.embeddings import (
    history_picture,
    plane_picture,
    show_history,
    show_neighbours,
    show_neighbours_of_one,
)
from attnlab.console import Console
from attnlab.errors import RequestError
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
    word, count, console = arguments.neighbours, arguments.k, Console()
    project, history, export = arguments.project, arguments.history, arguments.export
    endings_by_option = {"project": PICTURES, "history": PICTURES, "export": TABLES}
    for name, endings in endings_by_option.items():
        path = getattr(arguments, name)
        if path is not None:
            require_picture(path, endings, arguments.format, f"--{name}")
    if count is not None and count < 1:
        raise RequestError(f"-k {count} must be at least 1")
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    if word is not None or not (project or history or export):
        report = embedding_report(loaded, word, count)
        if arguments.format == "json":
            say(json.dumps(report.to_json(), indent=2, allow_nan=False))
        else:
            show = show_neighbours if word is None else show_neighbours_of_one
            show(console, report, loaded.embeddings)
    if project is not None:
        write.replace_file(project, plane_picture(embedding_plane(loaded), project.suffix))
        say(project)
    if history is not None:
        history_report = embedding_history(loaded)
        show_history(console, history_report)
        write.replace_file(history, history_picture(history_report, history.suffix))
        say(history)
    if export is not None:
        write.replace_file(export, embedding_table(loaded.embeddings, export.suffix))
        say(export)
    return 0
