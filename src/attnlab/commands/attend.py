"""`attnlab attend`: who looks at whom in a text, and what happens when it may not.

A pattern is never shown alone: beside it stands the answer without the edge. `--format json` prints
one object: schema, run, step, tokens, query (a position), answer [{"output", "p"}], heads
[{"layer", "head", "weights"}], influence (a share for each token), cuts [{"key", "answer"}]. Of a
model with an encoder, the heads are the encoder's; of an answer that is a sequence, the first token
is told.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from attnlab.commands.base import add_run, require_file, trained
from attnlab.errors import RequestError
from attnlab.evidence.intervene import attention_layers, cut
from attnlab.evidence.look import Seen
from attnlab.figures.base import visible
from attnlab.runs import write
from attnlab.trained import Trained

SCHEMA = 1
CUTS = 3
"""Edges that are cut: those to the tokens that the query attends to most, over all heads."""
SHADES = " ░▒▓█"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab attend`."""
    add_run(parser)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument(
        "--query", metavar="TOKEN", help="a token or its position; default: where the answer is"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="an HTML page instead")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the row of the query in every head, the answer, and the answer without its edges."""
    if arguments.output is not None:
        if arguments.format == "json":
            raise RequestError("--output writes a page and --format json prints; choose one")
        require_file(arguments.output)
    loaded = trained(arguments)
    seen, patterns = loaded.look(arguments.text)
    tokens = [loaded.objective.inputs[token] for token in map(int, seen.inputs)]
    query = _query(arguments.query, tokens, seen.asked_at)
    found = _found(loaded, arguments.text, seen, tokens, query)
    if arguments.format == "json":
        print(json.dumps(found, indent=2))
        return 0
    if arguments.output is not None:
        from attnlab.ui.page import attend_page

        said = [f"Answer: {_said(found['answer'])}.", *_cuts(found)]
        dataset = loaded.experiment.config.choices["dataset"]
        page = attend_page(patterns, " ".join(said), loaded.record.name, dataset, query)
        write.replace(arguments.output, page.encode())
        print(arguments.output)
        return 0
    _print(loaded, found, Console(highlight=False, markup=False, emoji=False))
    return 0


def _query(given: str | None, tokens: Sequence[str], asked_at: int) -> int:
    if given is None:
        return asked_at
    if given in tokens:
        return len(tokens) - 1 - tokens[::-1].index(given)
    if given.isdecimal() and int(given) < len(tokens):
        return int(given)
    raise RequestError(
        f"--query {given}: expected one of {' '.join(tokens)}, or a position below {len(tokens)}"
    )


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


def _print(loaded: Trained, found: dict[str, Any], console: Console) -> None:
    tokens, query = found["tokens"], found["query"]
    console.print(f"{found['run']}, step {found['step']}", style="bold")
    begins = "" if loaded.dataset.answer_length is None else " begins"
    console.print(f"answer{begins}: {_said(found['answer'])}")
    columns = [(f"L{one['layer']}H{one['head']}", one["weights"]) for one in found["heads"]]
    columns.append(("answer", found["influence"]))
    width = min(16, max(map(len, tokens)) + 2)
    per_block = max(1, (console.width - width - 3) // 7)
    for start in range(0, len(columns), per_block):
        block = columns[start : start + per_block]
        console.print()
        console.print(" " * width + "".join(f"{name:>7}" for name, _ in block), style="bold")
        for at, token in enumerate(tokens):
            name = visible(token)
            cells = "".join(f"{_cell(weights[at]):>7}" for _, weights in block)
            mark = ">" if at == query else " "
            console.print(f"{mark}{name[: width - 2]:<{width - 1}}{cells}")
    console.print()
    if found["heads"]:
        asks = visible(tokens[query])
        of = " of the encoder" if loaded.model.arrangement.encoder else ""
        console.print(f"LxHy: what {asks} at {query} attends to in each layer and head{of}")
    console.print("answer: each token's share in it, by |gradient x input|")
    for line in _cuts(found):
        console.print(line)
    console.print("A weight is no explanation; what the answer does without the edge is a test.")


def _cuts(found: dict[str, Any]) -> list[str]:
    if not found["cuts"]:
        return ["No edge can be cut here: the query sees one token, or nothing attends."]
    tokens, query = found["tokens"], found["query"]
    return [
        f"Without {visible(tokens[query])} -> {visible(tokens[one['key']])} in all heads: "
        f"{_said(one['answer'])}."
        for one in found["cuts"]
    ]


def _cell(weight: float) -> str:
    shade = SHADES[min(4, round(4 * weight**0.5))]
    return f"{shade} {weight:.2f}".replace(" 0.", " .")


def _said(answer: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{one['output']!r} {one['p']:.2f}" for one in answer)
