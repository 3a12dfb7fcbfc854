"""Who looks at whom in a text, in the terminal and for print."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from attnlab.analysis.attention_maps import AttentionMap, ShownMap
from attnlab.analysis.attention_report import Answer, AttentionReport, HeadRow
from attnlab.console import Console
from attnlab.figures import shades
from attnlab.layers import Axes, SequenceName

ROWS = 20
"""Tokens down the screen, of a longer text those around the query; `--map` shows all."""
CAUTION = "A weight is no explanation; what the answer does without the edge is a test."
SEQUENCES: dict[SequenceName, str] = {
    "inputs": "the text",
    "prefix": "the answer so far",
    "latents": "the latents",
}
LEGENDS = {
    "weights": "LxHy: what {} at {} attends to in each layer and head",
    "norms": "LxHy: what {} at {} reads in each layer and head, by length",
    "rollout": "Lx: what of each token is in {} at {} after each layer",
    "flow": "flow: what of each token can reach {} at {} through all attention layers",
}


def print_attention(
    report: AttentionReport, console: Console, *, query: str | None = None, map_alone: bool = False
) -> None:
    """Print a map, the row of the query in every head, and the answer without its edges.

    `query` is what was asked for: of a token that stands there twice, it is said which is meant.
    """
    tokens = report.tokens
    console.print(f"{report.run}, step {report.step}", style="bold")
    console.print(f"answer{' begins' if report.begins else ''}: {_answer(report.answer)}")
    if query is not None and tokens.count(query) > 1:
        positions = [at for at, token in enumerate(tokens) if token == query]
        console.print(
            f"{shades.name(query)} stands at {', '.join(map(str, positions))}; the query is the "
            f"last, --query {positions[0]} would be another"
        )
    console.print()
    _print_map(report.shown, console, None if map_alone else ROWS)
    if not map_alone:
        _print_heads(report, console)
    for line in cut_sentences(report):
        console.print(line)
    console.print(CAUTION)


def caption(report: AttentionReport, num_cuts: int | None = None) -> list[str]:
    """Return what stands beside a map: the answer, and what it is without the largest edges."""
    return [f"Answer: {_answer(report.answer)}.", *cut_sentences(report)[:num_cuts]]


def cut_sentences(report: AttentionReport) -> list[str]:
    """Say what is answered without each edge."""
    if not report.cuts:
        return ["No edge can be cut here: the query sees one token, or nothing attends."]

    def end(at: int) -> str:
        return f"{shades.name(report.tokens[at])} at {at}"

    return [
        f"Without {end(report.query)} -> {end(each.key)} in all heads: {_answer(each.answer)}."
        for each in report.cuts
    ]


def picture(report: AttentionReport, ending: str, *, every_head: bool) -> bytes:
    """Draw the map that is shown, or with `every_head` those of all layers and heads."""
    # Vega takes a while to load, and the terminal needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.heatmap import Map, heat_map, multiples

    run, shown = f"{report.run}, step {report.step}", report.shown
    below = [" ".join(caption(report, 1)), CAUTION]
    if every_head and shown.map.kind != "answer":
        maps = report.text_maps.layers
        if sum(len(each.weights) for each in maps) > 1:
            rows = [
                [
                    Map(each.title(name), each.queries, each.keys, weights, each.row)
                    for name, weights in zip(_head_names(each), each.weights, strict=True)
                ]
                for each in maps
            ]
            attention = all(each.kind == "attention" for each in maps)
            title = f"{run}: all {'attention ' * attention}layers{_and_heads(maps)}"
            if report.view != "weights":
                title = f"{title}, {report.view}"
            if not attention:
                measures = "; ".join(dict.fromkeys(each.measure for each in maps))
                below = [f"Weight: {measures}.", *below]
            figure: Any = multiples(rows, title, below, [_axis_titles(each.axes) for each in maps])
            return drawn(figure, ending)
    one = Map("", shown.map.queries, shown.map.keys, shown.weights, shown.row)
    measure = f"{shown.measure[0].upper()}{shown.measure[1:]}{_why(shown)}."
    figure = heat_map(one, f"{run}: {shown.title}", [measure, *below], _axis_titles(shown.axes))
    return drawn(figure, ending)


def _print_map(shown: ShownMap, console: Console, most_rows: int | None) -> None:
    """Print a map, with what it is above and what of it is left out below."""
    console.print(f"{shown.title}: {shown.measure}{_why(shown)}", style="bold")
    queries, keys = SEQUENCES[shown.axes.queries], SEQUENCES[shown.axes.keys]
    console.print(Text(f"down: queries ({queries}); across: keys ({keys}); darker: more"))
    drawn = shades.heat_map(
        shown.weights,
        shown.map.queries,
        shown.map.keys,
        shown.row,
        console.width,
        most_rows=most_rows,
        square=not shown.axes.crosses,
        coloured=console.color_system in ("256", "truecolor") and not console.no_color,
    )
    for line in drawn.lines:
        console.print(line)
    if drawn.said:
        console.print(drawn.said)


def _print_heads(report: AttentionReport, console: Console) -> None:
    """Print the row of the query in every head, as columns, in as many blocks as it takes."""
    tokens, query = report.tokens, report.query
    columns = [(_column(row), row.weights) for row in report.heads]
    columns.append(("answer", report.influence))
    largest = largest_tokens(columns, query)
    names = {at: shades.name(tokens[at]) for at in largest}
    if len(largest) < len(tokens):
        names = {at: f"{at} {name}" for at, name in names.items()}
    width = min(16, max(map(cell_len, names.values())) + 2)
    per_block = max(1, (console.width - width - 3) // 7)
    for start in range(0, len(columns), per_block):
        block = columns[start : start + per_block]
        console.print()
        console.print(" " * width + "".join(f"{name:>7}" for name, _ in block), style="bold")
        for at in largest:
            name = set_cell_size(names[at], width - 2)
            cells = "".join(f"{_cell(weights[at]):>7}" for _, weights in block)
            mark = ">" if at == query else " "
            console.print(f"{mark}{name} {cells}")
    console.print()
    if report.heads:
        legend = LEGENDS[report.view].format(shades.name(tokens[query]), query)
        console.print(f"{legend}{' of the encoder' if report.of_encoder else ''}")
    console.print("answer: each token's share in it, by |gradient x input|")
    if len(largest) < len(tokens):
        console.print(f"Shown are the {len(largest)} of {len(tokens)} tokens with the most weight.")


def largest_tokens(columns: Sequence[tuple[str, Sequence[float]]], query: int) -> list[int]:
    """Return the tokens that have a large weight in a column, in their order, and the query."""
    most = [max(weights) for weights in zip(*(weights for _, weights in columns), strict=True)]
    others = sorted(set(range(len(most))) - {query}, key=lambda at: -most[at])
    return sorted([query, *others[: ROWS - 1]])


def _column(row: HeadRow) -> str:
    if row.layer is None:
        return "flow"
    return f"L{row.layer}" if row.head is None else f"L{row.layer}H{row.head}"


def _head_names(shown: AttentionMap) -> list[int | str]:
    return list(range(len(shown.weights))) if shown.by_head else ["mean"]


def _and_heads(maps: Sequence[AttentionMap]) -> str:
    return " and heads" if all(each.by_head for each in maps) else ""


def _axis_titles(axes: Axes) -> tuple[str, str]:
    if not axes.crosses:
        return "query", "key"
    return f"query: {SEQUENCES[axes.queries]}", f"key: {SEQUENCES[axes.keys]}"


def _why(shown: ShownMap) -> str:
    return f"; {shown.why}" if shown.why else ""


def _cell(weight: float) -> str:
    return f"{shades.shade(weight)} {weight:.2f}".replace(" 0.", " .")


def _answer(answer: Sequence[Answer]) -> str:
    return ", ".join(f"{each.output!r} {each.p:.2f}" for each in answer)
