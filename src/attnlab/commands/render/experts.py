"""The experts of a run in the terminal, and as pictures."""

import numpy as np
from rich.table import Table

from attnlab.analysis.expert_report import EXAMPLES, ExpertReport, LayerExperts
from attnlab.analysis.table import format_number
from attnlab.console import Console
from attnlab.figures.terminal_heatmap import printable_token

ACROSS = 8
"""The number of experts on a line."""
LEGEND = (
    "balance: 1 where all experts have the same load; entropy of the router: 1 where",
    "it is undecided, 0 where one expert takes all; drops: the share of assignments",
    "that found no room; load: the share of all assignments that an expert has.",
    "Below it, the most frequent tokens, how often each was there, and the share of",
    "its assignments that each expert had. What the token tells of its experts: 0",
    "where they are chosen by chance, 1 where the token decides.",
)


def show_report(console: Console, report: ExpertReport) -> None:
    """Print the load and the tokens of the experts of each layer."""
    console.print(f"{report.run}, step {report.step}", style="bold")
    console.print(f"{report.split} split, {EXAMPLES} sequences at most")
    for layer in report.layers:
        console.print()
        console.print(_layer_title(layer), style="bold")
        _show_layer(console, layer)
    console.print()
    for line in LEGEND:
        console.print(line)


def draw_expert_load(report: ExpertReport, ending: str) -> bytes:
    """Draw the load of all experts, and which of them share tokens, as the content of a file."""
    # The figures take a while to load, and tables do not need them.
    from attnlab.figures.base import render_chart
    from attnlab.figures.expert_load import ExpertLoad, draw_loads

    layers = [
        ExpertLoad(_layer_title(layer), layer.load.numpy(), layer.co_assignment.numpy())
        for layer in report.layers
    ]
    return render_chart(draw_loads(layers), ending)


def draw_token_experts(report: ExpertReport, ending: str) -> bytes:
    """Draw the experts of each token of a report's only layer as the content of a file."""
    from attnlab.figures.base import render_chart
    from attnlab.figures.expert_load import draw_token_table

    (layer,) = report.layers
    # A share times the count is a whole number of assignments, except for rounding.
    counts = [np.rint(np.array(token.shares) * token.count) for token in layer.tokens]
    title = f"{report.run}, {_layer_title(layer)}"
    tokens = [token.token for token in layer.tokens]
    chart = draw_token_table(tokens, np.array(counts).astype(int), title, len(tokens))
    return render_chart(chart, ending)


def _layer_title(layer: LayerExperts) -> str:
    """Return the number of a layer and its path."""
    return f"layer {layer.layer} {layer.name}"


def _show_layer(console: Console, layer: LayerExperts) -> None:
    """Print the numbers of a layer, then its load and the shares of its tokens by expert."""
    dead_text = f"; dead: {', '.join(map(str, layer.dead))}" if layer.dead else ""
    console.print(
        f"balance {format_number(layer.balance, 2)}, "
        f"router's entropy {format_number(layer.router_entropy, 2)}, "
        f"drops {format_number(layer.drops, 2)}{dead_text}"
    )
    console.print(
        f"what the token tells of its experts: {format_number(layer.token_information, 2)}"
    )
    load = layer.load.tolist()
    rows = [("load", "", load)]
    rows += [
        (printable_token(token.token)[:14], str(token.count), token.shares)
        for token in layer.tokens
    ]
    for start in range(0, len(load), ACROSS):
        expert_ids = range(start, min(start + ACROSS, len(load)))
        table = Table(box=None, pad_edge=False)
        table.add_column("token")
        table.add_column("count", justify="right")
        for expert_id in expert_ids:
            table.add_column(str(expert_id), justify="right")
        for label, count, shares in rows:
            table.add_row(
                label, count, *(format_number(shares[expert_id], 2) for expert_id in expert_ids)
            )
        console.print(table)
