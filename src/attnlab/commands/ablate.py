"""`attnlab ablate`: a run without heads, without an attention edge, or with a twin's patterns.

Every mode takes `--layers 0,1` and `--heads 2,3`, which restrict it to these layers and heads.
`--format json` prints what the mode's function in `attnlab.analysis.ablations` returns.
"""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from attnlab.analysis import ablations
from attnlab.analysis.ablations import METHODS, ORDERS, AblationReport, PruningReport
from attnlab.analysis.ablations.request import require_heads
from attnlab.analysis.head_choice import select_heads
from attnlab.commands.base import add_run, load_run, require_output_file
from attnlab.commands.options import path_option
from attnlab.commands.render.ablation import draw_pruning_curve, print_ablation
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.layers import Axes
from attnlab.loaded_run import LoadedRun
from attnlab.printable import say
from attnlab.run_record import write

PICTURES = (".html", ".pdf", ".png", ".svg")
MODES = ("edge", "importance", "prune", "twins")
"""The modes beside the default (None), which measures the model without each head in turn."""
MODES_BY_OPTION: dict[str, tuple[str | None, ...]] = {
    "split": (None, "importance", "prune"),
    **dict.fromkeys(("metric", "method"), (None, "prune")),
    **dict.fromkeys(("order", "random", "output"), ("prune",)),
    "text": ("edge",),
    "query": ("twins",),
}
"""The modes that an option is for."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab ablate`."""
    add = parser.add_argument
    add_run(parser)
    add("--split", metavar="SPLIT", help="default: validation")
    add("--metric", help="default: the main one of the dataset")
    method_help = "a head passes nothing on (default), or has its mean pattern over the split"
    add("--method", choices=METHODS, help=method_help)
    add("--layers", metavar="N,...", help="these layers only, from 0")
    add("--heads", metavar="N,...", help="these heads of each layer only, from 0; or L1H2,...")
    importance_help = "the gradient of each head's gate beside the loss without the head"
    add("--importance", action="store_true", help=importance_help)
    add("--prune", action="store_true", help="remove all, the least important first")
    order_help = (
        "of --prune: by the gate's gradient (default), by that over its layer's norm, by the loss "
        "without each head alone, or by the loss without it and those that are gone"
    )
    add("--order", choices=ORDERS, help=order_help)
    add("--random", type=int, metavar="N", help="of --prune: N random orders too; default: none")
    output_help = f"of --prune: draw the curve instead: {', '.join(PICTURES)}"
    add("-o", "--output", type=path_option, metavar="FILE", help=output_help)
    add("--edge", metavar="QUERY:KEY", help="cut one edge of --text: of tokens or positions")
    add("--text", metavar="TEXT", help="what --edge is cut in")
    twins_help = "give each head its pattern on the twin, the sentence that has the other answer"
    add("--twins", action="store_true", help=twins_help)
    row_help = "of --twins: give it the row of this query alone; `asked`: where the answer is read"
    add("--query", metavar="TOKEN", help=row_help)
    add("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Run the requested ablation, and print or draw its report."""
    mode, directories = _parse_mode(arguments), (arguments.runs_dir, arguments.config_dir)
    report = _run_ablation(arguments, mode, load_run(arguments.run, *directories))
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2))
    elif arguments.output is not None and isinstance(report, PruningReport):
        write.replace_file(arguments.output, draw_pruning_curve(report, arguments.output.suffix))
        say(arguments.output)
    else:
        print_ablation(report, Console())
    return 0


def _parse_mode(arguments: Namespace) -> str | None:
    """Return the requested mode, and raise RequestError for options of other modes."""
    modes = [name for name in MODES if getattr(arguments, name) not in (None, False)]
    if len(modes) > 1:
        raise RequestError(f"--{modes[0]} and --{modes[1]} are two questions; ask one at a time")
    mode = modes[0] if modes else None
    for option, allowed_modes in MODES_BY_OPTION.items():
        if getattr(arguments, option) is not None and mode not in allowed_modes:
            reason = f"needs --{allowed_modes[0]}" if len(allowed_modes) == 1 else ""
            raise RequestError(f"--{option} {reason or f'has no meaning with --{mode}'}")
    if mode == "edge" and arguments.text is None:
        raise RequestError('--edge needs a sentence to cut it in: --text "..."')
    if arguments.random is not None and arguments.random < 1:
        raise RequestError(f"--random {arguments.random} must be at least 1")
    if arguments.output is not None:
        require_output_file(arguments.output, PICTURES, arguments.format)
    return mode


def _run_ablation(arguments: Namespace, mode: str | None, loaded: LoadedRun) -> AblationReport:
    """Return the report of the mode's analysis."""
    require_heads(loaded)
    layers = loaded.model.attention_layers()
    if mode == "edge" and arguments.layers is None:
        # In a model with an encoder, --heads selects among the layers that read the text.
        layers = [layer for layer in layers if layer.axes == Axes("inputs", "inputs")]
    heads = select_heads(layers, arguments.layers, arguments.heads)
    split, metric = arguments.split or "validation", arguments.metric
    method, order = arguments.method or "zero", arguments.order or "gradient"
    options: dict[str, Any] = {"split": split, "metric": metric, "method": method, "heads": heads}
    if mode == "edge":
        return ablations.edge_cut_report(loaded, arguments.text, arguments.edge, heads=heads)
    if mode == "importance":
        return ablations.importance_report(loaded, split=split, heads=heads)
    if mode == "prune":
        return ablations.pruning_report(loaded, **options, order=order, num_random=arguments.random)
    if mode == "twins":
        return ablations.patching_report(loaded, query=arguments.query, heads=heads)
    return ablations.heads_without_report(loaded, **options)
