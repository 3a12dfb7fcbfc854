"""What a run loses without heads or edges, in the terminal and for print."""

from collections.abc import Callable
from typing import Any

from rich.table import Table

from attnlab.analysis.ablations import (
    ASKED,
    AblationReport,
    EdgeCutReport,
    HeadsWithoutReport,
    ImportanceReport,
    PruningReport,
    TwinReport,
)
from attnlab.analysis.report import Report
from attnlab.console import Console
from attnlab.figures import shades


def print_ablation(report: AblationReport, console: Console) -> None:
    """Print what an intervention does, below the run and its step."""
    console.print(f"{report.run}, step {report.step}", style="bold")
    PRINTED[type(report)](report, console)


def picture(report: PruningReport, ending: str) -> bytes:
    """Draw the curve, as a file with such an ending holds it."""
    # Vega takes a while to load, and a table needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.embeddings import page
    from attnlab.figures.pruning import pruning

    random = report.random or ()
    replaced = "their mean patterns" if report.method == "mean" else "nothing"
    caption = [
        f"{report.run}, step {report.step}, {report.split} split",
        f"removed heads pass on {replaced}; the least needed first by {report.order}",
    ]
    if random:
        caption.append(f"band: lowest to highest of {len(random)} random orders")
    figure = pruning(
        [removal.value for removal in report.curve],
        [f"L{removal.layer}H{removal.head}" for removal in report.curve[1:]],
        report.metric,
        f"least needed first by {report.order}",
        caption,
        random,
    )
    return page(figure, report.run).encode() if ending == ".html" else drawn(figure, ending)


def _print_heads(report: HeadsWithoutReport, console: Console) -> None:
    metric, whole = report.metric, report.whole
    how = "; with the mean pattern of" if report.method == "mean" else "; without"
    console.print(f"{metric} on the {report.split} split: {whole:.4f}{how}")
    table = _table("layer", "head", metric, "change")
    rows = [(_layer(row), _head(row.head), row.value) for row in report.without]
    if report.together is not None:
        rows.append(("all of these", "", report.together))
    for layer, head, value in rows:
        table.add_row(layer, head, f"{value:.4f}", f"{value - whole:+.4f}")
    console.print(table)


def _print_edge(report: EdgeCutReport, console: Console) -> None:
    ends = [f"{shades.name(report.tokens[at])} at {at}" for at in (report.query, report.key)]
    console.print(f"without {' -> '.join(ends)}")
    table = _table("answer begins" if report.begins else "answer", "before", "after")
    for row in report.answers:
        table.add_row(repr(row.output), f"{row.before:.4f}", f"{row.after:.4f}")
    console.print(table)
    cuts = ", ".join(f"L{row.layer}H{row.head} {row.weight:.2f}" for row in report.heads)
    console.print(f"cut, with the attention that was there: {cuts}")


def _print_importance(report: ImportanceReport, console: Console) -> None:
    console.print(f"loss on the {report.split} split: {report.loss:.4f} nats")
    table = _table("layer", "head", "gradient", "in layer", "expected", "change")
    for row in report.heads:
        numbers = [f"{row.gradient:.2g}", f"{row.normalised:.2f}"]
        numbers += [f"{row.expected:+.4f}", f"{row.change:+.4f}"]
        table.add_row(_layer(row), str(row.head), *numbers)
    console.print(table)
    console.print("gradient: of a gate on the head, mean of |d loss / d gate|; in layer: its share")
    console.print("of the layer's l2 norm; expected: change of the loss without the head, if it")
    console.print("were linear; change: what it is")
    if report.rank_correlation is not None:
        console.print(f"rank correlation of gradient and change: {report.rank_correlation:.2f}")


def _print_pruning(report: PruningReport, console: Console) -> None:
    metric, (whole, *curve) = report.metric, report.curve
    console.print(f"{metric} on the {report.split} split: {whole.value:.4f}")
    how = "with mean patterns" if report.method == "mean" else "without"
    console.print(f"{how}, one head more each time, the least needed first by {report.order}")
    random = report.random or ()
    table = _table("layer", "head", "gone", metric, "change", *(["random"] if random else []))
    for row, *by_chance in zip(curve, *(values[1:] for values in random), strict=True):
        numbers = [f"{row.value:.4f}", f"{row.value - whole.value:+.4f}"]
        numbers += [f"{sum(by_chance) / len(by_chance):.4f}"] if by_chance else []
        table.add_row(_layer(row), str(row.head), str(row.removed), *numbers)
    console.print(table)
    if random:
        console.print(f"random: the same with heads removed by chance, mean of {len(random)}")


def _print_twins(report: TwinReport, console: Console) -> None:
    where = {None: "", ASKED: ", at the query that is asked"}.get(
        report.query, f", at the query {report.query!r}"
    )
    console.print(f"{report.pairs} twin pairs; A, with each head's pattern of its twin B{where}")
    table = _table("layer", "head", "difference", "effect")
    table.add_row("A", "", f"{report.one:+.3f}", "0.000")
    rows: list[tuple[str, str, Any]] = [(_layer(row), str(row.head), row) for row in report.heads]
    for layer, head, row in (*rows, ("all of these", "", report.together)):
        table.add_row(layer, head, f"{row.patched:+.3f}", f"{row.effect:.3f}")
    table.add_row("B", "", f"{report.other:+.3f}", "1.000")
    console.print(table)
    console.print("difference: the logit of A's answer less that of B's, mean over pairs;")
    console.print("effect: how far it went from that of A (0) to that of B (1)")


PRINTED: dict[type[Report], Callable[[Any, Console], None]] = {
    HeadsWithoutReport: _print_heads,
    EdgeCutReport: _print_edge,
    ImportanceReport: _print_importance,
    PruningReport: _print_pruning,
    TwinReport: _print_twins,
}


def _table(first: str, *numbers: str) -> Table:
    """Make a table of names, with numbers to their right."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _layer(row: Any) -> str:
    return f"{row.layer} {row.name}"


def _head(head: int | None) -> str:
    return "all" if head is None else str(head)
