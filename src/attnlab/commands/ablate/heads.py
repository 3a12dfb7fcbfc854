"""`attnlab ablate` by itself: what is lost without each head, one at a time."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from attnlab.commands.ablate.base import means, table
from attnlab.commands.base import measured
from attnlab.console import Console
from attnlab.evidence.intervene import Head, ablate, attention_layers, heads, prune
from attnlab.trained import Trained


def find(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    """Measure the model without each chosen head and without each layer's, one at a time."""
    split, metric, whole = measured(arguments, loaded)
    there, mean = heads(loaded.model), means(arguments, loaded, split)
    names, without = attention_layers(loaded.model), []
    for layer in dict.fromkeys(layer for layer, _ in chosen):
        alone: list[int | None] = [head for at, head in chosen if at == layer]
        # A layer of one head is the same as its head.
        everything = [None] if arguments.heads is None and there[layer] > 1 else []
        for head in [*alone, *everything]:
            with ablate(loaded.model, layer, None if head is None else [head], mean):
                value = loaded.evaluate(split)[metric]
            without.append({"layer": layer, "name": names[layer], "head": head, "value": value})
    together = None
    if arguments.layers is not None or arguments.heads is not None:
        with prune(loaded.model, chosen, mean):
            together = loaded.evaluate(split)[metric]
    return {
        "split": split,
        "metric": metric,
        "method": arguments.method or "zero",
        "whole": whole[metric],
        "without": without,
        "together": together,
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what is left without each."""
    metric, whole = found["metric"], found["whole"]
    how = "; with the mean pattern of" if found["method"] == "mean" else "; without"
    console.print(f"{metric} on the {found['split']} split: {whole:.4f}{how}")
    shown = table("layer", "head", metric, "change")
    rows = [(f"{r['layer']} {r['name']}", r["head"], r["value"]) for r in found["without"]]
    if found["together"] is not None:
        rows.append(("all of these", "", found["together"]))
    for layer, head, value in rows:
        which = "all" if head is None else str(head)
        shown.add_row(layer, which, f"{value:.4f}", f"{value - whole:+.4f}")
    console.print(shown)
