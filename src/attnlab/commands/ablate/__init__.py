"""`attnlab ablate`: what a run loses without heads, without an edge, with the looks of a twin.

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
  first of the whole model (layer, name and head null), then after each head that is removed; with
  `--random N` also random, the values of N such curves in an order by chance;
- `--edge`: begins (whether the answer is the first token of a sequence), tokens, query, key
  (positions), layers, heads [{"layer", "head", "weight"}] that are cut, with the attention that was
  there, and answers [{"output", "before", "after"}];
- `--twins`: pairs (of an input A and its twin B; all of the test split), query (a token, "asked",
  or null: all queries), one and other (the logit of A's answer less that of B's, mean over pairs,
  of the inputs A and B), heads [{"layer", "name", "head", "patched" (the same of A, where this head
  looks as with B), "effect" (how far that is from one, 0, to other, 1)}] and together {"patched",
  "effect"}, of all of these heads at once.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from attnlab.commands.ablate import edge, heads, importance, prune, twins
from attnlab.commands.base import add_run, require_picture, trained
from attnlab.commands.options import path_option
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence import intervene
from attnlab.evidence.intervene import Head
from attnlab.printable import say
from attnlab.runs import write

SCHEMA = 1
PICTURES = (".html", ".pdf", ".png", ".svg")
MODES = {None: heads, "edge": edge, "importance": importance, "prune": prune, "twins": twins}
"""What is done in each mode; None is that of heads, one at a time."""
HEED: dict[str, tuple[str | None, ...]] = {
    "split": (None, "importance", "prune"),
    "metric": (None, "prune"),
    "method": (None, "prune"),
    "order": ("prune",),
    "random": ("prune",),
    "output": ("prune",),
    "text": ("edge",),
    "query": ("twins",),
}
"""The modes that an option is for."""


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
        "--random", type=int, metavar="N", help="of --prune: N random orders too; default: none"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="FILE",
        help=f"of --prune: draw the curve instead: {', '.join(PICTURES)}",
    )
    parser.add_argument(
        "--edge", metavar="QUERY:KEY", help="cut one edge of --text, between tokens or positions"
    )
    parser.add_argument("--text", metavar="TEXT", help="what --edge is cut in")
    parser.add_argument(
        "--twins",
        action="store_true",
        help="give each head its pattern on the twin, the sentence that has the other answer",
    )
    parser.add_argument(
        "--query",
        metavar="TOKEN",
        help="of --twins: give it the row of this query alone; `asked`: where the answer is read",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print what the chosen intervention does."""
    mode = _mode(arguments)
    loaded = trained(arguments)
    if not intervene.attention_layers(loaded.model):
        raise RequestError(f"{loaded.record.name} has no attention heads: there is none to ablate")
    chosen = _chosen(arguments, intervene.heads(loaded.model))
    doing = MODES[mode]
    about = {"schema": SCHEMA, "run": loaded.record.name, "step": loaded.step}
    found = about | doing.find(arguments, loaded, chosen)
    if arguments.format == "json":
        say(json.dumps(found, indent=2))
        return 0
    if arguments.output is not None:
        write.replace(arguments.output, prune.picture(found, arguments.output.suffix))
        say(arguments.output)
        return 0
    console = Console()
    console.print(f"{loaded.record.name}, step {loaded.step}", style="bold")
    doing.show(console, found)
    return 0


def _mode(arguments: Namespace) -> str | None:
    """Say which mode is meant, and refuse options that it would not heed."""
    modes = [name for name in MODES if name and getattr(arguments, name) not in (None, False)]
    if len(modes) > 1:
        raise RequestError(f"--{modes[0]} and --{modes[1]} are two questions; ask one at a time")
    mode = modes[0] if modes else None
    for option, heeding in HEED.items():
        if getattr(arguments, option) is not None and mode not in heeding:
            alone = f"needs --{heeding[0]}" if len(heeding) == 1 else ""
            raise RequestError(f"--{option} {alone or f'has no meaning with --{mode}'}")
    if mode == "edge" and arguments.text is None:
        raise RequestError('--edge needs a sentence to cut it in: --text "..."')
    if arguments.random is not None and arguments.random < 1:
        raise RequestError(f"--random {arguments.random} must be at least 1")
    if arguments.output is not None:
        require_picture(arguments.output, PICTURES, arguments.format)
    return mode


def _chosen(arguments: Namespace, there: Sequence[int]) -> list[Head]:
    """List the heads that --layers and --heads leave."""
    layers = _numbers("layers", arguments.layers)
    for layer in layers or ():
        if layer >= len(there):
            count = f"{len(there)} attention layer{'s' * (len(there) > 1)}"
            raise RequestError(f"--layers {layer}: the model has {count}")
    layers = list(range(len(there))) if layers is None else layers
    named = _numbers("heads", arguments.heads)
    for head in named or ():
        for layer in layers:
            if head >= there[layer]:
                count = f"{there[layer]} head{'s' * (there[layer] > 1)}"
                raise RequestError(f"--heads {head}: layer {layer} has {count}")
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
