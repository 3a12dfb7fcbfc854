"""`attnlab attend`: who looks at whom in a text, and what happens when it may not.

A map is never shown alone: beside it stands the answer without the edge. `--layer` and `--head`
choose the map: layers have the numbers that `ablate` gives them, or are named by their path, and
`--layer answer` is the influence of each token on the answer at each position, by
|gradient x input|. Of layers without attention, one that is linear in its values shows its mixing
matrix (`evidence.influence.mixing`), another the influence of its inputs on its outputs, both as
shares of a row's absolute values, and never called attention. Without `--head`, that is shown whose
row at the query is sharpest, of least entropy. Without `--layer`, it is the layer that has the
sharpest of all heads, also where `--head` names another; where nothing attends, that with the
sharpest mixing matrix, and where nothing mixes linearly, the influence on the answers is shown.

`-o FILE` writes instead of printing, by the ending of its name:
- .html: a page in which query and head can be chosen, and which opens at the same head;
- .png, .svg, .pdf: heat maps for print, of the layer and head, or of all of them if none is chosen;
- .npz: all maps as arrays, SOURCE (head, query, key), SOURCE.tokens (the keys) and SOURCE.queries;
- .json: what `--format` says.

`--format json` prints one object: schema, run, step, tokens, query (a position), answer [{"output",
"p"}], heads [{"layer", "head", "weights"}], influence (a share for each token), cuts [{"key",
"answer"}], and maps [{"source", "layer" (null where nothing attends), "queries", "keys", "weights"
(head x query x key)}], all of what attends or mixes. Of a model with an encoder, the heads are the
encoder's; of an answer that is a sequence, the first token is told.

`--format bertviz` gives the arguments of BertViz 1.4.1, to be loaded in a notebook with

    given = json.load(open("FILE.json"))
    head_view(**{k: v if "tokens" in k else [torch.tensor(a) for a in v] for k, v in given.items()})

(or model_view), and `--format circuitsvis` those of CircuitsVis 1.43.3 for each layer:

    for layer in json.load(open("FILE.json")):
        display(circuitsvis.attention.attention_heads(**layer))

Maps that these cannot show are left out, which standard error says, with the reason.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from rich.cells import cell_len, set_cell_size
from torch import Tensor

from attnlab.commands.attend import maps
from attnlab.commands.base import HOW, add_run, place, require_picture, trained
from attnlab.commands.options import path_option
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.intervene import attention_layers, cut
from attnlab.evidence.look import Seen
from attnlab.figures import shades
from attnlab.printable import say
from attnlab.runs import write
from attnlab.runs.export_patterns import (
    left_out_of_bertviz,
    left_out_of_circuitsvis,
    plain,
    to_bertviz,
    to_circuitsvis,
    to_npz,
)
from attnlab.runs.patterns import INFLUENCE, Pattern
from attnlab.trained import Trained

SCHEMA = 1
CUTS = 3
"""Edges that are cut: those to the tokens that the query attends to most, over all heads."""
ROWS = 20
"""Tokens down the screen, of a longer text those around the query; `--map` shows all."""
PICTURES, FILES = (".png", ".svg", ".pdf"), (".html", ".npz", ".json")
PROGRAMS = {
    "bertviz": (to_bertviz, left_out_of_bertviz),
    "circuitsvis": (to_circuitsvis, left_out_of_circuitsvis),
}
CAUTION = "A weight is no explanation; what the answer does without the edge is a test."


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
    _require_sense(arguments)
    loaded = trained(arguments)
    seen, patterns = loaded.look(arguments.text)
    tokens = [loaded.objective.inputs[token] for token in map(int, seen.inputs)]
    query = _query(arguments.query, tokens, seen.asked_at)
    content = _content(arguments, loaded, seen, patterns, tokens, query)
    if arguments.output is not None:
        write.replace(arguments.output, content)
        say(arguments.output)
    elif arguments.format != "table":
        say(content.decode(), end="")
    return 0


def _content(
    arguments: Namespace,
    loaded: Trained,
    seen: Seen,
    patterns: Sequence[Pattern],
    tokens: Sequence[str],
    query: int,
) -> bytes:
    """Give what is to be written; a table is printed at once."""
    ending = None if arguments.output is None else arguments.output.suffix
    mixed = cache(partial(loaded.mixing, arguments.text))
    if arguments.format in PROGRAMS:
        return _to_program(arguments.format, patterns, loaded)
    if ending == ".npz":
        return to_npz(_all(patterns, mixed))
    found = _found(loaded, arguments.text, seen, tokens, query)
    if ending == ".json" or arguments.format == "json":
        found["maps"] = [
            {
                "source": pattern.source,
                "layer": maps.number(loaded, pattern) if pattern.is_attention else None,
                "queries": list(pattern.queries),
                "keys": list(pattern.tokens),
                "weights": pattern.weights.tolist(),
            }
            for pattern in _all(patterns, mixed)
        ]
        return json.dumps(found, indent=2).encode() + b"\n"
    if ending == ".html":
        from attnlab.ui.page import attend_page

        said = [f"Answer: {_said(found['answer'])}.", *_cuts(found)]
        dataset = loaded.experiment.config.choices["dataset"]
        # The page opens at a query of the text, so it shows what the text looks at.
        own = {name for name, (_, axes) in seen.maps.items() if axes == ("inputs", "inputs")}
        shown = [one for one in patterns if one.source in own | {INFLUENCE}]
        opens = None
        if any(pattern.is_attention for pattern in shown):
            sharpest = maps.choose(loaded, arguments, patterns, mixed, query)
            opens = (sharpest.pattern.source, sharpest.head)
        name = loaded.record.name
        return attend_page(shown, " ".join(said), name, dataset, query, opens).encode()
    chosen = maps.choose(loaded, arguments, patterns, mixed, query)
    if ending is not None:
        caption = [f"Answer: {_said(found['answer'])}. {_cuts(found)[0]}", CAUTION]
        return maps.picture(loaded, arguments, patterns, mixed, chosen, caption)
    _print(loaded, found, chosen, arguments, Console())
    return b""


def _require_sense(arguments: Namespace) -> None:
    """Refuse options that do not go together, before the run is loaded."""
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


def _query(given: str | None, tokens: Sequence[str], asked_at: int) -> int:
    if given is None:
        return asked_at
    at = place(given, tokens)
    if at is None:
        raise RequestError(
            f"--query {given}: expected one of {' '.join(tokens)}, or a position below "
            f"{len(tokens)}"
        )
    return at


def _to_program(form: str, patterns: Sequence[Pattern], loaded: Trained) -> bytes:
    """Give what a program takes, and say on standard error which maps it does not."""
    export, left_out = PROGRAMS[form]
    try:
        given = export(patterns)
    except ValueError as error:
        raise RequestError(
            f"--format {form}: {error}; -o FILE.npz writes every map of {loaded.record.name}"
        ) from error
    by_reason: dict[str, list[str]] = {}
    for source, why in left_out(patterns).items():
        by_reason.setdefault(why, []).append(source)
    if by_reason:
        said = "; ".join(f"{', '.join(sources)} ({why})" for why, sources in by_reason.items())
        say(
            f"--format {form} leaves out {said}; -o FILE.npz writes every map of "
            f"{loaded.record.name}",
            file=sys.stderr,
        )
    return json.dumps(plain(given)).encode() + b"\n"


def _all(patterns: Sequence[Pattern], mixed: Callable[[], Sequence[Pattern]]) -> list[Pattern]:
    """Give all maps, in place of influence on the answer that at each position."""
    return [*(one for one in patterns if one.is_attention), *mixed()]


def _found(
    loaded: Trained, text: str, seen: Seen, tokens: Sequence[str], query: int
) -> dict[str, Any]:
    # Of a model with an encoder, its layers alone have the tokens of the text for queries; they
    # have the numbers that `ablate` gives them.
    there = attention_layers(loaded.model)
    layers = [there.index(name.removesuffix(".pattern")) for name in seen.patterns]
    heads = [
        {"layer": layer, "head": head, "weights": rows[query].tolist()}
        for layer, pattern in zip(layers, seen.patterns.values(), strict=True)
        for head, rows in enumerate(pattern)
    ]
    cuts = []
    if heads:
        total = torch.stack([p[:, query].sum(dim=0) for p in seen.patterns.values()]).sum(dim=0)
        visible = int((total > 0).sum())
        for key in total.topk(min(CUTS, visible if visible > 1 else 0)).indices.tolist():
            with cut(loaded.model, torch.tensor([query]), torch.tensor([key]), layers):
                answer = _answer(loaded, loaded(text))
            cuts.append({"key": key, "answer": answer})
    return {
        "schema": SCHEMA,
        "run": loaded.record.name,
        "step": loaded.step,
        "tokens": list(tokens),
        "query": query,
        "answer": _answer(loaded, seen.answer),
        "heads": heads,
        "influence": seen.influence.tolist(),
        "cuts": cuts,
    }


def _answer(loaded: Trained, logits: Float[Tensor, " output"]) -> list[dict[str, Any]]:
    return [{"output": name, "p": p} for name, p in loaded.answers(logits)]


def _print(
    loaded: Trained, found: dict[str, Any], chosen: Any, arguments: Namespace, console: Console
) -> None:
    tokens = found["tokens"]
    console.print(f"{found['run']}, step {found['step']}", style="bold")
    begins = "" if loaded.dataset.answer_length is None else " begins"
    console.print(f"answer{begins}: {_said(found['answer'])}")
    if arguments.query in tokens and tokens.count(arguments.query) > 1:
        there = [at for at, token in enumerate(tokens) if token == arguments.query]
        console.print(
            f"{shades.name(arguments.query)} stands at {', '.join(map(str, there))}; the query is "
            f"the last, --query {there[0]} would be another"
        )
    console.print()
    chosen.show(console, None if arguments.map else ROWS)
    if not arguments.map:
        _print_heads(loaded, found, console)
    for line in _cuts(found):
        console.print(line)
    console.print(CAUTION)


def _print_heads(loaded: Trained, found: dict[str, Any], console: Console) -> None:
    tokens, query = found["tokens"], found["query"]
    columns = [(f"L{one['layer']}H{one['head']}", one["weights"]) for one in found["heads"]]
    columns.append(("answer", found["influence"]))
    shown = _largest(columns, query)
    names = {at: shades.name(tokens[at]) for at in shown}
    if len(shown) < len(tokens):
        names = {at: f"{at} {name}" for at, name in names.items()}
    width = min(16, max(map(cell_len, names.values())) + 2)
    per_block = max(1, (console.width - width - 3) // 7)
    for start in range(0, len(columns), per_block):
        block = columns[start : start + per_block]
        console.print()
        console.print(" " * width + "".join(f"{name:>7}" for name, _ in block), style="bold")
        for at in shown:
            name = set_cell_size(names[at], width - 2)
            cells = "".join(f"{_cell(weights[at]):>7}" for _, weights in block)
            mark = ">" if at == query else " "
            console.print(f"{mark}{name} {cells}")
    console.print()
    if found["heads"]:
        asks = shades.name(tokens[query])
        of = " of the encoder" if loaded.model.arrangement.encoder else ""
        console.print(f"LxHy: what {asks} at {query} attends to in each layer and head{of}")
    console.print("answer: each token's share in it, by |gradient x input|")
    if len(shown) < len(tokens):
        console.print(f"Shown are the {len(shown)} of {len(tokens)} tokens with the most weight.")


def _largest(columns: Sequence[tuple[str, Sequence[float]]], query: int) -> list[int]:
    """Give the tokens that have a large weight somewhere, in their order, and the query."""
    most = [max(weights) for weights in zip(*(weights for _, weights in columns), strict=True)]
    others = sorted(set(range(len(most))) - {query}, key=lambda at: -most[at])
    return sorted([query, *others[: ROWS - 1]])


def _cuts(found: dict[str, Any]) -> list[str]:
    if not found["cuts"]:
        return ["No edge can be cut here: the query sees one token, or nothing attends."]

    def end(at: int) -> str:
        return f"{shades.name(found['tokens'][at])} at {at}"

    return [
        f"Without {end(found['query'])} -> {end(one['key'])} in all heads: {_said(one['answer'])}."
        for one in found["cuts"]
    ]


def _cell(weight: float) -> str:
    return f"{shades.shade(weight)} {weight:.2f}".replace(" 0.", " .")


def _said(answer: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{one['output']!r} {one['p']:.2f}" for one in answer)
