"""Token embeddings in the terminal, and as pictures."""

from typing import Any

from rich.table import Table

from attnlab.analysis.embedding_report import (
    NEAR,
    EmbeddingHistory,
    EmbeddingPlane,
    EmbeddingReport,
    Neighbour,
)
from attnlab.console import Console
from attnlab.figures.terminal_heatmap import printable_token
from attnlab.interp.embeddings import Embeddings


def show_neighbours(console: Console, report: EmbeddingReport, embeddings: Embeddings) -> None:
    """Print the nearest tokens of several tokens, `NEAR` on a line."""
    _show_size(console, report, embeddings)
    console.print("the most frequent tokens, and those whose vectors are nearest, by cosine")
    table = Table(box=None, pad_edge=False, show_header=False)
    for token_neighbours in report.neighbours:
        for start in range(0, len(token_neighbours.near), NEAR):
            token_label = printable_token(token_neighbours.token) if not start else ""
            table.add_row(
                token_label, *map(_format_neighbour, token_neighbours.near[start:][:NEAR])
            )
    console.print(table)


def show_neighbours_of_one(
    console: Console, report: EmbeddingReport, embeddings: Embeddings
) -> None:
    """Print the nearest tokens of a report's only token, one on a line."""
    (token_neighbours,) = report.neighbours
    _show_size(console, report, embeddings)
    console.print(
        f"nearest to {printable_token(token_neighbours.token)}, by the cosine of the vectors"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for near in token_neighbours.near:
        table.add_row(printable_token(near.token), _format_cosine(near.cosine))
    console.print(table)


def show_history(console: Console, history: EmbeddingHistory) -> None:
    """Print how far the embeddings of each recorded step are from those of the last step."""
    console.print(f"{len(history.tokens)} tokens over {len(history.steps)} recorded steps")
    table = Table(box=None, pad_edge=False)
    for header in ("step", "drift", "turnover"):
        table.add_column(header, justify="right")
    drifts_and_turnovers = zip(history.steps.tolist(), history.drift, history.turnover, strict=True)
    for step, drift, turnover in drifts_and_turnovers:
        table.add_row(str(step), f"{drift:.2f}", f"{turnover:.2f}")
    console.print(table)
    console.print("drift: 1 - cosine to the last step, once turned to it; turnover: share of the")
    console.print(f"{history.count} nearest tokens that are others at the last step")


def draw_plane(plane: EmbeddingPlane, ending: str) -> bytes:
    """Draw all tokens on two principal components as the content of a file."""
    # The figures take a while to load, and printing neighbours does not need them.
    from attnlab.figures.embedding_plane import draw_plane as drawing

    names = [printable_token(token) for token in plane.tokens]
    figure = drawing(names, plane.places.numpy(), plane.shares.tolist(), plane.run)
    return _encode_figure(figure, plane.run, ending)


def draw_history(history: EmbeddingHistory, ending: str) -> bytes:
    """Draw the path of each token as the content of a file; a page has a slider over the steps."""
    from attnlab.figures.embedding_plane import draw_animated_plane, draw_paths

    draw = draw_animated_plane if ending == ".html" else draw_paths
    names, steps = [printable_token(token) for token in history.tokens], history.steps.tolist()
    figure = draw(names, steps, history.places.numpy(), history.shares.tolist(), history.run)
    return _encode_figure(figure, history.run, ending)


def _encode_figure(figure: Any, title: str, ending: str) -> bytes:
    """Return a figure as the content of a file with such an ending."""
    from attnlab.figures.base import render_chart
    from attnlab.figures.figure_page import figure_page

    return (
        figure_page(figure, title).encode() if ending == ".html" else render_chart(figure, ending)
    )


def _show_size(console: Console, report: EmbeddingReport, embeddings: Embeddings) -> None:
    num_tokens, d_model = embeddings.vectors.shape
    console.print(f"{report.run}, step {report.step}", style="bold")
    console.print(f"{num_tokens} tokens, {d_model} numbers each")


def _format_neighbour(near: Neighbour) -> str:
    return f"{printable_token(near.token)} {_format_cosine(near.cosine)}"


def _format_cosine(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)
