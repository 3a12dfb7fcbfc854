"""`attnlab experts`: which experts of a trained run work on what.

`--format json` prints one object: schema, run, step, split, layers [{"name", "load" (share of
assignments, by expert), "dead" (experts without any), "drops", "balance" (entropy of the load over
log(experts)), "router_entropy" (the router's own, over log(experts)), "token_information" (what the
token tells of its experts, 0 to 1 after chance), "together" (share of tokens sent to both),
"tokens" [{"token", "count", "shares" (by expert)}], the most frequent first}].
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attnlab.commands.base import add_run, require_picture, trained
from attnlab.commands.options import path_option
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.routing import Routing, routing
from attnlab.figures.base import drawn
from attnlab.figures.shades import name
from attnlab.printable import say
from attnlab.runs import write
from attnlab.runs.table import number

if TYPE_CHECKING:
    from attnlab.trained import Trained

SCHEMA = 1
EXAMPLES, TOKENS = 512, 12
"""Sequences that are followed, and tokens of a layer that are told."""
PICTURES = (".pdf", ".png", ".svg")
ACROSS = 8
"""Experts that a line has room for."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab experts`."""
    add_run(parser)
    parser.add_argument("--split", metavar="SPLIT", help="default: validation")
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
    """Print what each layer's experts have to do, or draw it; the path is the last line."""
    if arguments.output is not None:
        require_picture(arguments.output, PICTURES, arguments.format)
    loaded = trained(arguments)
    split = arguments.split or "validation"
    if split not in loaded.dataset.splits:
        there = ", ".join(loaded.dataset.split_names)
        raise RequestError(f"--split {split}: the data have no such split; there is {there}")
    try:
        with loaded.precision():
            found = routing(
                *(loaded.model, loaded.objective, loaded.dataset.splits[split]),
                num_examples=EXAMPLES,
            )
    except LookupError as error:
        raise RequestError(
            f"{loaded.record.name} has no experts; train one with variant=moe"
        ) from error
    if arguments.layer is not None:
        if not 0 <= arguments.layer < len(found):
            raise RequestError(
                f"--layer {arguments.layer}: the run has {len(found)} layers of experts, "
                "counted from 0"
            )
        path = list(found)[arguments.layer]
        found = {path: found[path]}
    if arguments.format == "json":
        say(json.dumps(_content(loaded, split, found), indent=2))
    elif arguments.output is None:
        _print(loaded, split, found)
    else:
        write.replace(arguments.output, _picture(arguments, loaded, found))
        say(arguments.output)
    return 0


def _content(loaded: "Trained", split: str, found: Mapping[str, Routing]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "run": loaded.record.name,
        "step": loaded.step,
        "split": split,
        "layers": [
            {
                "name": path,
                "load": seen.load.tolist(),
                "dead": seen.dead,
                "drops": seen.drops,
                "balance": seen.balance,
                "router_entropy": seen.normalised_entropy,
                "token_information": seen.token.normalised,
                "together": seen.together.tolist(),
                "tokens": [
                    {"token": token, "count": count, "shares": shares}
                    for token, count, shares in _tokens(loaded, seen)
                ],
            }
            for path, seen in found.items()
        ],
    }


def _tokens(loaded: "Trained", seen: Routing) -> list[tuple[str, int, list[float]]]:
    """Give the most frequent tokens that went anywhere, how often, and their shares."""
    counts, shares = seen.table.sum(dim=1), seen.shares
    order = counts.argsort(descending=True, stable=True)[:TOKENS].tolist()
    names = list(loaded.objective.inputs)
    return [(names[at], int(counts[at]), shares[at].tolist()) for at in order if counts[at]]


def _print(loaded: "Trained", split: str, found: Mapping[str, Routing]) -> None:
    console = Console()
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    console.print(f"{split} split, {EXAMPLES} sequences at most")
    for layer, (path, seen) in enumerate(found.items()):
        console.print()
        console.print(f"layer {layer} {path}" if len(found) > 1 else path, style="bold")
        dead = f"; dead: {', '.join(map(str, seen.dead))}" if seen.dead else ""
        console.print(
            f"balance {number(seen.balance, 2)}, router's entropy "
            f"{number(seen.normalised_entropy, 2)}, drops {number(seen.drops, 2)}{dead}"
        )
        console.print(f"what the token tells of its experts: {number(seen.token.normalised, 2)}")
        rows = [("load", "", seen.load.tolist())]
        rows += [(name(t)[:14], str(count), shares) for t, count, shares in _tokens(loaded, seen)]
        for start in range(0, len(seen.load), ACROSS):
            some = range(start, min(start + ACROSS, len(seen.load)))
            table = Table(box=None, pad_edge=False)
            table.add_column("token")
            table.add_column("count", justify="right")
            for expert in some:
                table.add_column(str(expert), justify="right")
            for token, count, shares in rows:
                table.add_row(token, count, *(number(shares[at], 2) for at in some))
            console.print(table)
    console.print()
    console.print("balance, entropy: 1 is even; of a token, the share of each expert, the most")
    console.print("frequent tokens first; what it tells is 0 by chance, 1 where it decides")


def _picture(arguments: Namespace, loaded: "Trained", found: Mapping[str, Routing]) -> bytes:
    # The figures take a while to load, and tables need none.
    from attnlab.figures.routing import Layer, loads, table

    if arguments.layer is None:
        layers = [
            Layer(path, seen.load.numpy(), seen.together.numpy()) for path, seen in found.items()
        ]
        return drawn(loads(layers), arguments.output.suffix)
    ((path, seen),) = found.items()
    title = f"{loaded.record.name}, {path}"
    chart = table(loaded.objective.inputs, seen.table.numpy(), title)
    return drawn(chart, arguments.output.suffix)
