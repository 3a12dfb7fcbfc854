"""`attnlab ablate`: what a run loses without heads, without a layer's attention, without an edge.

Every mode takes `--layers 0,1` and `--heads 2,3`: then only these are meant. `--format json` prints
one object with schema, run, step, and what the mode finds:
- heads, one at a time: split, metric, method ("zero", or "mean": the pattern that the head has on
  average over the split, at each position), whole (the metric of the whole model), without
  [{"layer", "name", "head" (null: all of them), "value"}] and together (the metric without all
  that --layers and --heads name; null where they are not given);
- `--importance`: split, loss (of the whole model, nats), heads [{"layer", "name", "head",
  "gradient" (of a gate at 1: the mean of |d loss / d gate|), "normalised" (by its layer's l2 norm),
  "expected" (the change of the loss if it were linear), "value" (the loss without the head),
  "change"}] and rank_correlation (of gradient and change, Spearman's; null where one has no order);
- `--prune`: split, metric, method, order, curve [{"removed", "layer", "name", "head", "value"}],
  first of the whole model (layer, name and head null), then after each head that is removed;
- `--edge`: begins (whether the answer is the first token of a sequence), tokens, query, key
  (positions), layers, heads [{"layer", "head", "weight"}] that are cut, with the attention that was
  there, and answers [{"output", "before", "after"}].
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from attnlab.commands.base import add_run, trained
from attnlab.errors import RequestError
from attnlab.evidence.importance import Importance, greedy, importance, pruning, rank_correlation
from attnlab.evidence.intervene import (
    Head,
    Means,
    ablate,
    attention_layers,
    cut,
    heads,
    mean_patterns,
    prune,
    questions,
)
from attnlab.figures.base import visible
from attnlab.trained import Trained

SCHEMA = 1
SHOWN = 3
"""Answers that are told of the likeliest, before and after."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab ablate`."""
    add_run(parser)
    parser.add_argument("--split", metavar="SPLIT", help="default: validation")
    parser.add_argument("--metric", help="default: the main one of the dataset")
    parser.add_argument(
        "--method",
        choices=("zero", "mean"),
        help="a head passes nothing on (default), or has its mean pattern over the split",
    )
    parser.add_argument("--layers", metavar="N,...", help="these layers only, from 0")
    parser.add_argument("--heads", metavar="N,...", help="these heads of each layer only, from 0")
    parser.add_argument(
        "--importance",
        action="store_true",
        help="the gradient of each head's gate beside the loss without the head",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove all, the least important first"
    )
    parser.add_argument(
        "--order",
        choices=("gradient", "normalised", "ablation", "greedy"),
        help="of --prune: by the gate's gradient (default), by that over its layer's norm, by the "
        "loss without each head alone, or by the loss without it and those that are gone",
    )
    parser.add_argument(
        "--edge", metavar="QUERY:KEY", help="cut one edge of --text, between tokens or positions"
    )
    parser.add_argument("--text", metavar="TEXT", help="what --edge is cut in")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print what the chosen intervention does."""
    _require_fitting(arguments)
    loaded = trained(arguments)
    if not attention_layers(loaded.model):
        raise RequestError(f"{loaded.record.name} has no attention heads: there is none to ablate")
    chosen = _chosen(arguments, heads(loaded.model))
    if arguments.edge is not None:
        find, show = _edge, _show_edge
    elif arguments.importance:
        find, show = _importance, _show_importance
    elif arguments.prune:
        find, show = _prune, _show_prune
    else:
        find, show = _without, _show_without
    about = {"schema": SCHEMA, "run": loaded.record.name, "step": loaded.step}
    found = about | find(arguments, loaded, chosen)
    if arguments.format == "json":
        print(json.dumps(found, indent=2))
        return 0
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    show(console, found)
    return 0


def _require_fitting(arguments: Namespace) -> None:
    """Refuse options that the mode would not heed."""
    modes = [
        name
        for name in ("edge", "importance", "prune")
        if getattr(arguments, name) not in (None, False)
    ]
    if len(modes) > 1:
        raise RequestError(f"--{modes[0]} and --{modes[1]} are two questions; ask one at a time")
    deaf = {
        "edge": ("split", "metric", "method", "order"),
        "importance": ("metric", "method", "order", "text"),
        "prune": ("text",),
        None: ("order", "text"),
    }
    mode = modes[0] if modes else None
    for option in deaf[mode]:
        if getattr(arguments, option) is not None:
            needs = {"order": "--prune", "text": "--edge"}.get(option)
            why = f"needs {needs}" if needs else f"has no meaning with --{mode}"
            raise RequestError(f"--{option} {why}")
    if mode == "edge" and arguments.text is None:
        raise RequestError('--edge needs a sentence to cut it in: --text "..."')


def _chosen(arguments: Namespace, there: Sequence[int]) -> list[Head]:
    """List the heads that --layers and --heads leave."""
    layers = _numbers("layers", arguments.layers)
    for layer in layers or ():
        if layer >= len(there):
            raise RequestError(f"--layers {layer}: the model has {len(there)} attention layers")
    layers = list(range(len(there))) if layers is None else layers
    named = _numbers("heads", arguments.heads)
    for head in named or ():
        for layer in layers:
            if head >= there[layer]:
                raise RequestError(f"--heads {head}: layer {layer} has {there[layer]} heads")
    return [
        (layer, h) for layer in layers for h in (range(there[layer]) if named is None else named)
    ]


def _numbers(option: str, given: str | None) -> list[int] | None:
    if given is None:
        return None
    parts = given.split(",")
    if not all(part.isdecimal() for part in parts):
        raise RequestError(f"--{option} {given}: expected numbers from 0, as in --{option} 0,2")
    return sorted({int(part) for part in parts})


def _whole(arguments: Namespace, loaded: Trained) -> tuple[str, str, dict[str, float]]:
    """Measure the whole model: the split, the metric that is told, and all of them."""
    split = arguments.split or "validation"
    whole, metric = loaded.evaluate(split), arguments.metric or loaded.dataset.headline
    if metric not in whole:
        raise RequestError(f"there is no metric {metric!r}; there are {', '.join(whole)}")
    return split, metric, whole


def _means(arguments: Namespace, loaded: Trained, split: str) -> Means | None:
    if arguments.method != "mean":
        return None
    asked = questions(loaded.model, loaded.objective, loaded.dataset.splits[split])
    return mean_patterns(loaded.model, asked, loaded.precision)


def _gradients(loaded: Trained, split: str) -> Importance:
    asked = questions(loaded.model, loaded.objective, loaded.dataset.splits[split])
    return importance(loaded.model, loaded.objective, asked, loaded.precision)


def _without(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    split, metric, whole = _whole(arguments, loaded)
    means, there = _means(arguments, loaded, split), heads(loaded.model)
    names, without = attention_layers(loaded.model), []
    for layer in dict.fromkeys(layer for layer, _ in chosen):
        alone: list[int | None] = [head for at, head in chosen if at == layer]
        # A layer of one head is the same as its head.
        everything = [None] if arguments.heads is None and there[layer] > 1 else []
        for head in [*alone, *everything]:
            with ablate(loaded.model, layer, None if head is None else [head], means):
                value = loaded.evaluate(split)[metric]
            without.append({"layer": layer, "name": names[layer], "head": head, "value": value})
    together = None
    if arguments.layers is not None or arguments.heads is not None:
        with prune(loaded.model, chosen, means):
            together = loaded.evaluate(split)[metric]
    return {
        "split": split,
        "metric": metric,
        "method": arguments.method or "zero",
        "whole": whole[metric],
        "without": without,
        "together": together,
    }


def _show_without(console: Console, found: dict[str, Any]) -> None:
    metric, whole = found["metric"], found["whole"]
    how = "; with the mean pattern of" if found["method"] == "mean" else "; without"
    console.print(f"{metric} on the {found['split']} split: {whole:.4f}{how}")
    table = _table("head", metric, "change")
    rows = [(f"{r['layer']} {r['name']}", r["head"], r["value"]) for r in found["without"]]
    if found["together"] is not None:
        rows.append(("all of these", "", found["together"]))
    for layer, head, value in rows:
        shown = "all" if head is None else str(head)
        table.add_row(layer, shown, f"{value:.4f}", f"{value - whole:+.4f}")
    console.print(table)


def _importance(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    split = arguments.split or "validation"
    whole = loaded.evaluate(split)["loss"]
    found, names, rows = _gradients(loaded, split), attention_layers(loaded.model), []
    for head in chosen:
        with prune(loaded.model, [head]):
            value = loaded.evaluate(split)["loss"]
        rows.append(
            {
                "layer": head[0],
                "name": names[head[0]],
                "head": head[1],
                "gradient": found.heads[head],
                "normalised": found.normalised[head],
                "expected": -found.slopes[head],
                "value": value,
                "change": value - whole,
            }
        )
    alike = rank_correlation([r["gradient"] for r in rows], [r["change"] for r in rows])
    return {"split": split, "loss": whole, "heads": rows, "rank_correlation": alike}


def _show_importance(console: Console, found: dict[str, Any]) -> None:
    console.print(f"loss on the {found['split']} split: {found['loss']:.4f} nats")
    table = _table("head", "gradient", "in layer", "expected", "change")
    for row in found["heads"]:
        numbers = [f"{row['gradient']:.4f}", f"{row['normalised']:.2f}"]
        numbers += [f"{row['expected']:+.4f}", f"{row['change']:+.4f}"]
        table.add_row(f"{row['layer']} {row['name']}", str(row["head"]), *numbers)
    console.print(table)
    console.print("gradient: of a gate on the head, mean of |d loss / d gate|; in layer: its share")
    console.print("of the layer's l2 norm; expected: change of the loss without the head, if it")
    console.print("were linear; change: what it is")
    if found["rank_correlation"] is not None:
        alike = found["rank_correlation"]
        console.print(f"rank correlation of gradient and change: {alike:.2f}")


def _prune(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    split, metric, _ = _whole(arguments, loaded)
    means, by = _means(arguments, loaded, split), arguments.order or "gradient"

    def loss() -> float:
        return loaded.evaluate(split)["loss"]

    if by == "greedy":
        order = greedy(loaded.model, chosen, loss, means)
    elif by == "ablation":
        alone = {}
        for head in chosen:
            with prune(loaded.model, [head], means):
                alone[head] = loss()
        order = sorted(chosen, key=alone.__getitem__)
    else:
        gates = _gradients(loaded, split)
        by_head = gates.heads if by == "gradient" else gates.normalised
        order = sorted(chosen, key=by_head.__getitem__)
    values = pruning(loaded.model, order, lambda: loaded.evaluate(split)[metric], means)
    names = attention_layers(loaded.model)
    removed = [(None, None, None), *((layer, names[layer], head) for layer, head in order)]
    curve = [
        {"removed": count, "layer": layer, "name": name, "head": head, "value": value}
        for count, ((layer, name, head), value) in enumerate(zip(removed, values, strict=True))
    ]
    method = arguments.method or "zero"
    return {"split": split, "metric": metric, "method": method, "order": by, "curve": curve}


def _show_prune(console: Console, found: dict[str, Any]) -> None:
    metric, (whole, *curve) = found["metric"], found["curve"]
    console.print(f"{metric} on the {found['split']} split: {whole['value']:.4f}")
    how = "with mean patterns" if found["method"] == "mean" else "without"
    console.print(f"{how}, one head more each time, the least needed first by {found['order']}")
    table = _table("head", "gone", metric, "change")
    for row in curve:
        numbers = f"{row['value']:.4f}", f"{row['value'] - whole['value']:+.4f}"
        layer = f"{row['layer']} {row['name']}"
        table.add_row(layer, str(row["head"]), str(row["removed"]), *numbers)
    console.print(table)


def _edge(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    model = loaded.model
    seen, _ = loaded.look(arguments.text)
    tokens = [loaded.objective.inputs[token] for token in map(int, seen.inputs)]
    query, key = _ends(arguments.edge, tokens)
    there, named = attention_layers(model), _numbers("layers", arguments.layers)
    # Of a model with an encoder, its layers alone have the tokens of the text for queries.
    patterns = {there.index(name.removesuffix(".pattern")): p for name, p in seen.patterns.items()}
    if not patterns:
        raise RequestError(f"--edge: no layer of {loaded.record.name} has tokens see one another")
    chosen = [head for head in chosen if head[0] in patterns]
    if set(named or ()) - set(patterns):
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


def _ends(edge: str, tokens: Sequence[str]) -> tuple[int, int]:
    """Find the query and the key; a token may itself have a colon."""
    parts = edge.split(":")
    for end in range(1, len(parts)):
        query, key = (_place(":".join(part), tokens) for part in (parts[:end], parts[end:]))
        if query is not None and key is not None:
            return query, key
    raise RequestError(
        f"--edge {edge}: expected QUERY:KEY, each of {' '.join(tokens)}, or a position below "
        f"{len(tokens)}"
    )


def _place(given: str, tokens: Sequence[str]) -> int | None:
    if given in tokens:
        return len(tokens) - 1 - tokens[::-1].index(given)
    return int(given) if given.isdecimal() and int(given) < len(tokens) else None


def _show_edge(console: Console, found: dict[str, Any]) -> None:
    tokens, (query, key) = found["tokens"], (found["query"], found["key"])
    where = f"{visible(tokens[query])} at {query} -> {visible(tokens[key])} at {key}"
    console.print(f"without {where}")
    table = Table(box=None, pad_edge=False)
    table.add_column("answer begins" if found["begins"] else "answer")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for row in found["answers"]:
        table.add_row(repr(row["output"]), f"{row['before']:.4f}", f"{row['after']:.4f}")
    console.print(table)
    cuts = ", ".join(f"L{h['layer']}H{h['head']} {h['weight']:.2f}" for h in found["heads"])
    console.print(f"cut, with the attention that was there: {cuts}")


def _table(*numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
