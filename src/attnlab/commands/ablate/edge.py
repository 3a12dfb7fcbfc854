"""`attnlab ablate --edge`: the answer to a text where one token does not see another."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch

from attnlab.commands.ablate.base import table
from attnlab.commands.base import place
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.intervene import Head, attention_layers, cut
from attnlab.figures import shades
from attnlab.trained import Trained

SHOWN = 3
"""Answers that are told of the likeliest, before and after."""


def find(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    """Cut the edge in the chosen heads, and answer with it and without."""
    model = loaded.model
    seen, _ = loaded.look(arguments.text)
    tokens = [loaded.objective.inputs[token] for token in map(int, seen.inputs)]
    query, key = _ends(arguments.edge, tokens)
    there, named = attention_layers(model), {layer for layer, _ in chosen}
    # Of a model with an encoder, its layers alone have the tokens of the text for queries.
    patterns = {there.index(name.removesuffix(".pattern")): p for name, p in seen.patterns.items()}
    if not patterns:
        raise RequestError(f"--edge: no layer of {loaded.record.name} has tokens see one another")
    chosen = [head for head in chosen if head[0] in patterns]
    if arguments.layers is not None and named - set(patterns):
        raise RequestError(
            f"--layers {arguments.layers}: tokens of the text see one another in layers "
            f"{','.join(map(str, sorted(patterns)))}"
        )
    if query < key and model.causal and not model.arrangement.encoder:
        raise RequestError(
            f"--edge {arguments.edge}: a causal model does not see {tokens[key]!r} at {key} from "
            f"{tokens[query]!r} at {query}, which comes before it"
        )
    layers = sorted({layer for layer, _ in chosen})
    only = None if arguments.heads is None else sorted({head for _, head in chosen})
    try:
        with cut(model, torch.tensor([query]), torch.tensor([key]), layers, only):
            after = loaded(arguments.text)
    except ValueError as error:
        raise RequestError(f"--edge {arguments.edge}: {error}") from error
    both = [logits.float().softmax(dim=0) for logits in (seen.answer, after)]
    best = {int(at) for p in both for at in p.topk(min(SHOWN, len(p))).indices}
    return {
        "begins": loaded.dataset.answer_length is not None,
        "tokens": tokens,
        "query": query,
        "key": key,
        "layers": layers,
        "heads": [
            {"layer": layer, "head": head, "weight": float(patterns[layer][head, query, key])}
            for layer, head in chosen
        ],
        "answers": [
            {
                "output": loaded.objective.outputs[at],
                "before": float(both[0][at]),
                "after": float(both[1][at]),
            }
            for at in sorted(best, key=lambda at: -float(both[0][at]))
        ],
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the likeliest answers, and what was cut."""
    ends = [f"{shades.name(found['tokens'][at])} at {at}" for at in (found["query"], found["key"])]
    console.print(f"without {' -> '.join(ends)}")
    shown = table("answer begins" if found["begins"] else "answer", "before", "after")
    for row in found["answers"]:
        shown.add_row(repr(row["output"]), f"{row['before']:.4f}", f"{row['after']:.4f}")
    console.print(shown)
    cuts = ", ".join(f"L{h['layer']}H{h['head']} {h['weight']:.2f}" for h in found["heads"])
    console.print(f"cut, with the attention that was there: {cuts}")


def _ends(edge: str, tokens: Sequence[str]) -> tuple[int, int]:
    """Find the query and the key; a token may itself have a colon."""
    parts = edge.split(":")
    for end in range(1, len(parts)):
        query, key = (place(":".join(part), tokens) for part in (parts[:end], parts[end:]))
        if query is not None and key is not None:
            return query, key
    raise RequestError(
        f"--edge {edge}: expected QUERY:KEY, each of {' '.join(tokens)}, or a position below "
        f"{len(tokens)}"
    )
