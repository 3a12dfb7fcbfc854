"""The attention within a text, in the terminal and as pictures."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from attnlab.analysis.attention_maps import AttentionMap, ShownMap
from attnlab.analysis.attention_report import AnswerProbability, AttentionReport, HeadRow
from attnlab.console import Console
from attnlab.figures import terminal_heatmap
from attnlab.layers import Axes, SequenceName

ROWS = 20
"""The number of rows of a map on the screen, around the query; `--map` shows all rows."""
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

    `query` is the query as the user wrote it: for a token that occurs twice, its position is named.
    """
    tokens = report.tokens
    console.print(f"{report.run}, step {report.step}", style="bold")
    console.print(f"answer{' begins' if report.begins else ''}: {_answer_text(report.answer)}")
    if query is not None and tokens.count(query) > 1:
        positions = [position for position, token in enumerate(tokens) if token == query]
        console.print(
            f"{terminal_heatmap.printable_token(query)} stands at {', '.join(map(str, positions))}"
            f"; the query is the last, --query {positions[0]} would be another"
        )
    console.print()
    _print_map(report.shown, console, None if map_alone else ROWS)
    if not map_alone:
        _print_query_rows(report, console)
    for line in cut_sentences(report):
        console.print(line)
    console.print(CAUTION)


def caption_lines(report: AttentionReport, num_cuts: int | None = None) -> list[str]:
    """Return the caption of a map: the answer, and the answers without the largest edges."""
    return [f"Answer: {_answer_text(report.answer)}.", *cut_sentences(report)[:num_cuts]]


def cut_sentences(report: AttentionReport) -> list[str]:
    """Return a sentence with the answer without each edge."""
    if not report.cuts:
        return ["No edge can be cut here: the query sees one token, or nothing attends."]

    def token_at(position: int) -> str:
        return f"{terminal_heatmap.printable_token(report.tokens[position])} at {position}"

    query = token_at(report.query)
    return [
        f"Without {query} -> {token_at(cut.key)} ({cut.weight:.2f} in {cut.chosen_by}; cut in all "
        f"heads): {_answer_text(cut.answer)}."
        for cut in report.cuts
    ]


def draw_attention(report: AttentionReport, ending: str, *, all_heads: bool) -> bytes:
    """Draw the map that is shown, or with `all_heads` the maps of all layers and heads."""
    # Vega takes a while to load, and the terminal does not need it.
    from attnlab.figures.base import render_chart
    from attnlab.figures.heatmap import Map, draw_heat_map

    shown_map = report.shown
    if all_heads and shown_map.map.kind != "answer":
        maps = report.layer_maps
        if sum(len(text_map.weights) for text_map in maps) > 1:
            return render_chart(_figure_of_all_heads(report, maps), ending)
    single_map = Map(
        "", shown_map.map.queries, shown_map.map.keys, shown_map.weights, shown_map.row
    )
    title = f"{report.run}, step {report.step}: {shown_map.title}"
    measure = f"{shown_map.measure[0].upper()}{shown_map.measure[1:]}{_reason_text(shown_map)}."
    lines_below = [measure, " ".join(caption_lines(report, 1)), CAUTION]
    return render_chart(
        draw_heat_map(single_map, title, lines_below, _axis_titles(shown_map.axes)), ending
    )


def _figure_of_all_heads(report: AttentionReport, maps: Sequence[AttentionMap]) -> Any:
    """Return the figure with a row of heat maps for each layer."""
    from attnlab.figures.heatmap import Map, draw_small_multiples

    rows = [
        [
            Map(text_map.title(name), text_map.queries, text_map.keys, weights, text_map.row)
            for name, weights in zip(_head_names(text_map), text_map.weights, strict=True)
        ]
        for text_map in maps
    ]
    all_attend = all(text_map.kind == "attention" for text_map in maps)
    title = f"{report.run}, step {report.step}: "
    title += f"all {'attention ' * all_attend}layers{_and_heads_text(maps)}"
    if report.view != "weights":
        title = f"{title}, {report.view}"
    lines_below = [" ".join(caption_lines(report, 1)), CAUTION]
    if not all_attend:
        measures = "; ".join(dict.fromkeys(text_map.measure for text_map in maps))
        lines_below = [f"Weight: {measures}.", *lines_below]
    return draw_small_multiples(
        rows, title, lines_below, [_axis_titles(text_map.axes) for text_map in maps]
    )


def _print_map(shown_map: ShownMap, console: Console, most_rows: int | None) -> None:
    """Print a map, with its title above and a note on the rows and columns left out below."""
    console.print(f"{shown_map.title}: {shown_map.measure}{_reason_text(shown_map)}", style="bold")
    queries, keys = SEQUENCES[shown_map.axes.queries], SEQUENCES[shown_map.axes.keys]
    console.print(Text(f"down: queries ({queries}); across: keys ({keys}); darker: more"))
    shaded_map = terminal_heatmap.draw_terminal_map(
        shown_map.weights,
        shown_map.map.queries,
        shown_map.map.keys,
        shown_map.row,
        console.width,
        most_rows=most_rows,
        square=not shown_map.axes.crosses,
        coloured=console.color_system in ("256", "truecolor") and not console.no_color,
    )
    for line in shaded_map.lines:
        console.print(line)
    if shaded_map.summary:
        console.print(shaded_map.summary)


def _print_query_rows(report: AttentionReport, console: Console) -> None:
    """Print the row of the query in every head as a column, in blocks as wide as the screen."""
    tokens, query = report.tokens, report.query
    columns = [(_column_header(row), row.weights) for row in report.heads]
    columns.append(("answer", report.influence))
    largest_positions = positions_of_most_weight(columns, query)
    token_labels = {
        position: terminal_heatmap.printable_token(tokens[position])
        for position in largest_positions
    }
    if len(largest_positions) < len(tokens):
        token_labels = {position: f"{position} {label}" for position, label in token_labels.items()}
    width = min(16, max(map(cell_len, token_labels.values())) + 2)
    columns_per_block = max(1, (console.width - width - 3) // 7)
    for start in range(0, len(columns), columns_per_block):
        block = columns[start : start + columns_per_block]
        console.print()
        console.print(" " * width + "".join(f"{header:>7}" for header, _ in block), style="bold")
        for position in largest_positions:
            row_label = set_cell_size(token_labels[position], width - 2)
            cells = "".join(f"{_shaded_cell(weights[position]):>7}" for _, weights in block)
            query_mark = ">" if position == query else " "
            console.print(f"{query_mark}{row_label} {cells}")
    console.print()
    if report.heads:
        legend = LEGENDS[report.view].format(terminal_heatmap.printable_token(tokens[query]), query)
        console.print(f"{legend}{' of the encoder' if report.of_encoder else ''}")
    console.print("answer: each token's share in it, by |gradient x input|")
    if len(largest_positions) < len(tokens):
        console.print(
            f"Shown are the {len(largest_positions)} of {len(tokens)} tokens with the most weight."
        )


def positions_of_most_weight(
    columns: Sequence[tuple[str, Sequence[float]]], query: int
) -> list[int]:
    """Return the positions with the largest weights in any column, and the query, in text order."""
    largest_weights = [
        max(weights) for weights in zip(*(weights for _, weights in columns), strict=True)
    ]
    other_positions = sorted(
        set(range(len(largest_weights))) - {query}, key=lambda position: -largest_weights[position]
    )
    return sorted([query, *other_positions[: ROWS - 1]])


def _column_header(row: HeadRow) -> str:
    if row.layer is None:
        return "flow"
    return f"L{row.layer}" if row.head is None else f"L{row.layer}H{row.head}"


def _head_names(text_map: AttentionMap) -> list[int | str]:
    return list(range(len(text_map.weights))) if text_map.has_heads else ["mean"]


def _and_heads_text(maps: Sequence[AttentionMap]) -> str:
    return " and heads" if all(text_map.has_heads for text_map in maps) else ""


def _axis_titles(axes: Axes) -> tuple[str, str]:
    if not axes.crosses:
        return "query", "key"
    return f"query: {SEQUENCES[axes.queries]}", f"key: {SEQUENCES[axes.keys]}"


def _reason_text(shown_map: ShownMap) -> str:
    return f"; {shown_map.reason}" if shown_map.reason else ""


def _shaded_cell(weight: float) -> str:
    return f"{terminal_heatmap.shade_character(weight)} {weight:.2f}".replace(" 0.", " .")


def _answer_text(answer: Sequence[AnswerProbability]) -> str:
    return ", ".join(
        f"{likely_output.output!r} {likely_output.probability:.2f}" for likely_output in answer
    )
