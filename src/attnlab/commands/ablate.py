"""`attnlab ablate`: what a run loses without each head, and without each layer's attention.

`--format json` prints one object: schema, run, step, split, metric, whole (the metric of the whole
model) and without [{"layer", "name", "head" (null: all of them), "value"}].
"""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from rich.console import Console
from rich.table import Table

from attnlab.commands.base import add_run, trained
from attnlab.dataset.base import SPLITS
from attnlab.errors import RequestError
from attnlab.evidence.intervene import ablate, attention_layers, heads

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab ablate`."""
    add_run(parser)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--metric", help="default: the main one of the dataset")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the metric of the whole model, and without each head."""
    loaded = trained(arguments)
    there = heads(loaded.model)
    if not there:
        raise RequestError(f"{loaded.record.name} has no attention heads: there is none to ablate")
    whole = loaded.evaluate(arguments.split)
    metric = arguments.metric or loaded.dataset.headline
    if metric not in whole:
        raise RequestError(f"there is no metric {metric!r}; there are {', '.join(whole)}")
    without: list[dict[str, Any]] = []
    names = attention_layers(loaded.model)
    for layer, (name, num_heads) in enumerate(zip(names, there, strict=True)):
        # A layer of one head is the same as its head.
        for head in [*range(num_heads), *([None] if num_heads > 1 else [])]:
            with ablate(loaded.model, layer, None if head is None else [head]):
                value = loaded.evaluate(arguments.split)[metric]
            without.append({"layer": layer, "name": name, "head": head, "value": value})
    found = {
        "schema": SCHEMA,
        "run": loaded.record.name,
        "step": loaded.step,
        "split": arguments.split,
        "metric": metric,
        "whole": whole[metric],
        "without": without,
    }
    if arguments.format == "json":
        print(json.dumps(found, indent=2))
        return 0
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    console.print(f"{metric} on the {arguments.split} split: {whole[metric]:.4f}; without")
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for name in ("head", metric, "change"):
        table.add_column(name, justify="right")
    for one in without:
        head = "all" if one["head"] is None else str(one["head"])
        change = one["value"] - whole[metric]
        layer = f"{one['layer']} {one['name']}"
        table.add_row(layer, head, f"{one['value']:.4f}", f"{change:+.4f}")
    console.print(table)
    return 0
