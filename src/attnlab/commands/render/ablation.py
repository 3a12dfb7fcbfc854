"""Ablation reports in the terminal, and the pruning curve as a picture."""

from collections.abc import Callable
from typing import Any

from rich.table import Table

from attnlab.analysis.ablations import (
    ASKED,
    AblationReport,
    EdgeCutReport,
    HeadsWithoutReport,
    ImportanceReport,
    PatchingReport,
    PruningReport,
)
from attnlab.analysis.report import Report
from attnlab.console import Console
from attnlab.figures import terminal_heatmap


def print_ablation(report: AblationReport, console: Console) -> None:
    """Print an ablation report below the run and its step."""
    console.print(f"{report.run}, step {report.step}", style="bold")
    PRINTERS[type(report)](report, console)


def draw_pruning_curve(report: PruningReport, ending: str) -> bytes:
    """Draw the pruning curve as the content of a file with such an ending."""
    # Vega takes a while to load, and a table does not need it.
    from attnlab.figures.base import render_chart
    from attnlab.figures.figure_page import figure_page
    from attnlab.figures.pruning import draw_pruning

    random_curves = report.random or ()
    replacement = "their mean patterns" if report.method == "mean" else "nothing"
    caption = [
        f"{report.run}, step {report.step}, {report.split} split",
        f"removed heads pass on {replacement}; the least needed first by {report.order}",
    ]
    if random_curves:
        caption.append(f"band: lowest to highest of {len(random_curves)} random orders")
    figure = draw_pruning(
        [removal.value for removal in report.curve],
        [f"L{removal.layer}H{removal.head}" for removal in report.curve[1:]],
        report.metric,
        f"least needed first by {report.order}",
        caption,
        random_curves,
    )
    return (
        figure_page(figure, report.run).encode()
        if ending == ".html"
        else render_chart(figure, ending)
    )


def _print_heads_without(report: HeadsWithoutReport, console: Console) -> None:
    """Print the metric without each head, and without all of them."""
    metric, full_value = report.metric, report.intact
    method_text = "; with the mean pattern of" if report.method == "mean" else "; without"
    console.print(f"{metric} on the {report.split} split: {full_value:.4f}{method_text}")
    table = _build_table("layer", "head", metric, "change")
    rows = [(_layer_label(row), _head_label(row.head), row.value) for row in report.ablated]
    if report.all_ablated is not None:
        rows.append(("all of these", "", report.all_ablated))
    for layer, head, value in rows:
        table.add_row(layer, head, f"{value:.4f}", f"{value - full_value:+.4f}")
    console.print(table)


def _print_edge(report: EdgeCutReport, console: Console) -> None:
    """Print the answers before and after an edge was cut."""
    edge_ends = [
        f"{terminal_heatmap.printable_token(report.tokens[position])} at {position}"
        for position in (report.query, report.key)
    ]
    console.print(f"without {' -> '.join(edge_ends)}")
    table = _build_table("answer begins" if report.begins else "answer", "before", "after")
    for row in report.answers:
        table.add_row(repr(row.output), f"{row.before:.4f}", f"{row.after:.4f}")
    console.print(table)
    weight_texts = ", ".join(f"L{row.layer}H{row.head} {row.weight:.2f}" for row in report.heads)
    console.print(f"cut, with the attention that was there: {weight_texts}")


def _print_importance(report: ImportanceReport, console: Console) -> None:
    """Print each head's gradient beside the change of the loss without it."""
    console.print(f"loss on the {report.split} split: {report.loss:.4f} nats")
    table = _build_table("layer", "head", "gradient", "in layer", "expected", "change")
    for row in report.heads:
        numbers = [f"{row.gradient:.2g}", f"{row.normalised:.2f}"]
        numbers += [f"{row.expected:+.4f}", f"{row.change:+.4f}"]
        table.add_row(_layer_label(row), str(row.head), *numbers)
    console.print(table)
    console.print("gradient: of a gate on the head, mean of |d loss / d gate|; in layer: its share")
    console.print("of the layer's l2 norm; expected: change of the loss without the head, if it")
    console.print("were linear; change: what it is")
    if report.rank_correlation is not None:
        console.print(f"rank correlation of gradient and change: {report.rank_correlation:.2f}")


def _print_pruning(report: PruningReport, console: Console) -> None:
    """Print the metric after each head that was removed."""
    metric, (unpruned, *curve) = report.metric, report.curve
    console.print(f"{metric} on the {report.split} split: {unpruned.value:.4f}")
    method_text = "with mean patterns" if report.method == "mean" else "without"
    console.print(
        f"{method_text}, one head more each time, the least needed first by {report.order}"
    )
    random_curves = report.random or ()
    table = _build_table(
        "layer", "head", "gone", metric, "change", *(["random"] if random_curves else [])
    )
    for row, *random_values in zip(curve, *(values[1:] for values in random_curves), strict=True):
        numbers = [f"{row.value:.4f}", f"{row.value - unpruned.value:+.4f}"]
        numbers += [f"{sum(random_values) / len(random_values):.4f}"] if random_values else []
        table.add_row(_layer_label(row), str(row.head), str(row.removed), *numbers)
    console.print(table)
    if random_curves:
        console.print(
            f"random: the same with heads removed by chance, mean of {len(random_curves)}"
        )


def _print_twins(report: PatchingReport, console: Console) -> None:
    """Print what each head's pattern of the twin does to the logit difference."""
    query_suffix = {None: "", ASKED: ", at the query that is asked"}.get(
        report.query, f", at the query {report.query!r}"
    )
    console.print(
        f"{report.pairs} twin pairs; A, with each head's pattern of its twin B{query_suffix}"
    )
    table = _build_table("layer", "head", "difference", "effect")
    table.add_row("A", "", f"{report.original:+.3f}", "0.000")
    rows: list[tuple[str, str, Any]] = [
        (_layer_label(row), str(row.head), row) for row in report.heads
    ]
    for layer, head, row in (*rows, ("all of these", "", report.all_heads)):
        table.add_row(layer, head, f"{row.patched:+.3f}", f"{row.effect:.3f}")
    table.add_row("B", "", f"{report.counterpart:+.3f}", "1.000")
    console.print(table)
    console.print("difference: the logit of A's answer less that of B's, mean over pairs;")
    console.print("effect: how far it went from that of A (0) to that of B (1)")


PRINTERS: dict[type[Report], Callable[[Any, Console], None]] = {
    HeadsWithoutReport: _print_heads_without,
    EdgeCutReport: _print_edge,
    ImportanceReport: _print_importance,
    PruningReport: _print_pruning,
    PatchingReport: _print_twins,
}


def _build_table(first_header: str, *number_headers: str) -> Table:
    """Build a table with a first column of names, and right-aligned columns of numbers."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first_header)
    for header in number_headers:
        table.add_column(header, justify="right")
    return table


def _layer_label(row: Any) -> str:
    return f"{row.layer} {row.name}"


def _head_label(head: int | None) -> str:
    return "all" if head is None else str(head)
