r"""`attnlab embed`: the vectors that a trained run reads for its tokens, and which are alike.

`--format json` prints one object: schema, run, step, neighbours [{"token", "near": [{"token",
"cosine"}]}]. In exported files, control characters of a token are escaped, as in \n and \x00.
"""

import csv
import io
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table

from attnlab.commands.base import add_run, require_picture, trained
from attnlab.commands.options import path_option
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.embeddings import Embeddings, course, drift, principal, turnover
from attnlab.figures.base import drawn, visible
from attnlab.printable import say
from attnlab.runs import write
from attnlab.runs.vectors import recorded

if TYPE_CHECKING:
    from attnlab.trained import Trained

SCHEMA = 1
SEQUENCES = 256
"""Validation sequences in which tokens are counted, to begin with the most frequent."""
ROWS, NEAR, NEAR_ONE = 12, 3, 10
"""Tokens that are shown unless one is named; their neighbours, and those of one that is named."""
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
        "--course",
        type=path_option,
        metavar="FILE",
        help=f"draw how those that were recorded came there over training: {', '.join(PICTURES)}",
    )
    parser.add_argument(
        "--export", type=path_option, metavar="FILE", help=f"write all down: {', '.join(TABLES)}"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print neighbours, or write what was asked for; the paths are the last lines."""
    files = {
        "--project": (arguments.project, PICTURES),
        "--course": (arguments.course, PICTURES),
        "--export": (arguments.export, TABLES),
    }
    for option, (path, endings) in files.items():
        if path is not None:
            require_picture(path, endings, arguments.format, option)
    if arguments.k is not None and arguments.k < 1:
        raise RequestError(f"-k {arguments.k} must be at least 1")
    loaded = trained(arguments)
    vectors = loaded.embeddings
    order = _by_frequency(loaded)
    written = arguments.project or arguments.course or arguments.export
    if arguments.neighbours is not None or not written:
        if arguments.neighbours is None:
            words, count = [vectors.tokens[at] for at in order[:ROWS]], arguments.k or NEAR
        else:
            words, count = [_token(arguments.neighbours, vectors.tokens)], arguments.k or NEAR_ONE
        found = {word: vectors.neighbours(word, count) for word in words}
        if arguments.format == "json":
            _print_json(loaded, found)
        else:
            _print(loaded, found, one=arguments.neighbours is not None)
    if arguments.project is not None:
        write.replace(arguments.project, _picture(loaded, order, arguments.project.suffix))
        say(arguments.project)
    if arguments.course is not None:
        write.replace(arguments.course, _course(loaded, order, arguments.course.suffix))
        say(arguments.course)
    if arguments.export is not None:
        write.replace(arguments.export, _table(vectors, arguments.export.suffix))
        say(arguments.export)
    return 0


def _by_frequency(loaded: "Trained") -> list[int]:
    split = loaded.dataset.splits["validation"]
    batch = split.batch(np.arange(min(SEQUENCES, len(split))))
    inputs = batch.inputs if batch.valid is None else batch.inputs[batch.valid]
    counts = torch.bincount(inputs.flatten(), minlength=len(loaded.objective.inputs))
    return counts.argsort(descending=True, stable=True).tolist()


def _token(given: str, tokens: Sequence[str]) -> str:
    """Find a token by its name, or by what is shown of it."""
    if given in tokens:
        return given
    return {name: token for token in tokens for name in (_escaped(token), _shown(token))}.get(
        given, given
    )


def _shown(token: str) -> str:
    return _escaped(visible(token))


def _escaped(token: str) -> str:
    """Write what has no sign of its own as Python does."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in token
    )


def _print(loaded: "Trained", found: dict[str, list[tuple[str, float]]], one: bool) -> None:
    console = Console()
    size, width = loaded.embeddings.vectors.shape
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    console.print(f"{size} tokens, {width} numbers each")
    table = Table(box=None, pad_edge=False, show_header=False)
    if one:
        ((word, near),) = found.items()
        console.print(f"nearest to {_shown(word)}, by the cosine of the vectors")
        rows = [[_shown(token), _cosine(cosine)] for token, cosine in near]
    else:
        console.print("the most frequent tokens, and those whose vectors are nearest, by cosine")
        rows = [
            [_shown(word) if not start else "", *(_said(*pair) for pair in near[start:][:NEAR])]
            for word, near in found.items()
            for start in range(0, len(near), NEAR)
        ]
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_json(loaded: "Trained", found: dict[str, list[tuple[str, float]]]) -> None:
    neighbours = [
        {"token": word, "near": [{"token": token, "cosine": cosine} for token, cosine in near]}
        for word, near in found.items()
    ]
    whole = {"schema": SCHEMA, "run": loaded.record.name, "step": loaded.step}
    say(json.dumps({**whole, "neighbours": neighbours}, indent=2))


def _said(token: str, cosine: float) -> str:
    return f"{_shown(token)} {_cosine(cosine)}"


def _cosine(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


def _picture(loaded: "Trained", order: Sequence[int], ending: str) -> bytes:
    # The figures take a while to load, and neighbours need none.
    from attnlab.figures.embeddings import plane

    vectors = loaded.embeddings
    try:
        places, shares = principal(vectors.vectors)
    except ValueError as error:
        raise RequestError(f"--project: {error}") from error
    names = [_shown(vectors.tokens[at]) for at in order]
    figure = plane(names, places[order].numpy(), shares.tolist(), loaded.record.name)
    return _drawn(figure, loaded.record.name, ending)


def _course(loaded: "Trained", order: Sequence[int], ending: str) -> bytes:
    """Draw the recorded vectors over their steps, the most frequent tokens named first."""
    from attnlab.figures.embeddings import film, paths

    steps, vectors = recorded(loaded.record)
    if len(steps) < 2:
        raise RequestError(
            f"--course: {loaded.record.name} recorded the vectors of {len(steps)} steps, and a "
            "course needs two; train with callbacks=default, whose `vectors` keeps them"
        )
    every = [torch.from_numpy(one) for one in vectors]
    try:
        places, (_, shares) = course(every), principal(every[-1])
    except ValueError as error:
        raise RequestError(f"--course: {error}") from error
    first = [at for at in order if at < vectors.shape[1]]
    names = [_shown(loaded.embeddings.tokens[at]) for at in first]
    draw = film if ending == ".html" else paths
    title = loaded.record.name
    chart = draw(names, steps.tolist(), places[:, first].numpy(), shares.tolist(), title)
    console = Console()
    console.print(f"{len(first)} tokens over {len(steps)} recorded steps")
    table = Table(box=None, pad_edge=False)
    for name in ("step", "drift", "turnover"):
        table.add_column(name, justify="right")
    count = min(NEAR_ONE, vectors.shape[1] - 1)
    for step, one in zip(steps.tolist(), every, strict=True):
        moved, lost = drift(one, every[-1]), turnover(one, every[-1], count)
        table.add_row(str(step), f"{moved:.2f}", f"{lost:.2f}")
    console.print(table)
    console.print("drift: 1 - cosine to the last step, once turned to it; turnover: share of the")
    console.print(f"{count} nearest tokens that are others at the last step")
    return _drawn(chart, title, ending)


def _drawn(figure: Any, title: str, ending: str) -> bytes:
    from attnlab.figures.embeddings import page

    if ending == ".html":
        return page(figure, title).encode()
    return drawn(figure, ending)


def _table(vectors: Embeddings, ending: str) -> bytes:
    names = [_escaped(token) for token in vectors.tokens]
    if ending == ".npz":
        content = io.BytesIO()
        np.savez(content, tokens=np.array(names), vectors=vectors.vectors.numpy())
        return content.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="," if ending == ".csv" else "\t", lineterminator="\n")
    writer.writerow(["token", *range(vectors.vectors.shape[1])])
    for name, vector in zip(names, vectors.vectors.numpy(), strict=True):
        writer.writerow([name, *vector])
    return text.getvalue().encode()
