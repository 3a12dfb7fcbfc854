"""The served page of embeddings: the recorded vectors of a run on a plane, step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.recorded_embeddings import RecordedEmbeddings
from attnlab.analysis.table import format_number
from attnlab.figures.embedding_step import draw_embedding_course, draw_embedding_step
from attnlab.report.page import ChartGroup
from attnlab.report.record_page import (
    Choice,
    DataCell,
    DataTable,
    RecordPage,
    RecordSection,
    command,
    describe_left_out,
)
from attnlab.report.view import PageView

COLOURS = {"kind": "how it is spelled", "frequency": "how often it occurs"}
"""What the colour of a token may say."""


@dataclass(frozen=True)
class EmbeddingsView(PageView):
    """Whose embeddings are shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/embeddings"
    where: str = ""
    run: tuple[str, ...] = ()
    shown: str = ""
    """The run that is drawn; empty for the first with vectors."""
    at: str = ""
    """The place of the step among the recorded ones, from 0; empty for the last."""
    colour: str = "kind"
    token: str = ""
    """The token whose neighbours are listed; empty for the first."""


def embeddings_page(
    embeddings: RecordedEmbeddings,
    names: Sequence[str],
    view: EmbeddingsView,
    left_out: Sequence[LeftOut] = (),
) -> RecordPage:
    """Return the page of the embeddings of one run; `names` are all runs to choose from."""
    steps = embeddings.history.steps.tolist()
    at = int(view.at) if view.at else len(steps) - 1
    step_texts = {str(place): f"{step:,}" for place, step in enumerate(steps)}
    token_texts = {token: token for token in embeddings.history.tokens}
    return RecordPage(
        "Embeddings",
        [*_sections(embeddings, view, at)],
        [
            Choice("shown", "run", embeddings.run, {name: name for name in names}),
            Choice("colour", "colour", view.colour, COLOURS),
            Choice("token", "neighbours of", embeddings.token, token_texts),
            Choice("at", "after step", str(at), step_texts, is_slider=True),
        ],
        lead=(
            "The vectors that a run recorded for the first tokens of its vocabulary, on the first "
            "two principal components of its last step. Every step is rotated onto the last one."
        ),
        notes=describe_left_out(left_out),
        report=embeddings,
    )


def _sections(
    embeddings: RecordedEmbeddings, view: EmbeddingsView, at: int
) -> Iterator[RecordSection]:
    """Yield the plane with the way there, and the neighbours of a token."""
    history, notes = embeddings.history, []
    if not embeddings.is_named:
        notes.append(
            "This record does not name its tokens, as runs of this version do; the command below "
            "names them with the model and the data."
        )
    yield RecordSection(
        embeddings.run,
        lead=f"After step {history.steps[at]:,}; {len(history.tokens)} tokens.",
        chart_groups=[
            ChartGroup("", [plane_chart(embeddings, view.colour, at), course_chart(embeddings, at)])
        ],
        notes=notes,
    )
    yield RecordSection(
        "Neighbours",
        tables=[
            DataTable(
                f"Nearest to {embeddings.token} after the last step",
                ["token", "cosine"],
                [
                    [DataCell(near.token), DataCell(format_number(near.cosine, 3))]
                    for near in embeddings.neighbours
                ],
                ["Among the recorded tokens, by the cosine of their recorded vectors."],
            )
        ],
        commands={
            "Among all tokens, with the model": command("embed", embeddings.run),
            "All tokens on a plane": command("embed", embeddings.run, "--project", "plane.html"),
        },
    )


def plane_chart(embeddings: RecordedEmbeddings, colour: str, at: int) -> Any:
    """Draw the tokens after one of the recorded steps."""
    history = embeddings.history
    places = history.places.numpy()
    flat = places.reshape(-1, 2)
    shares = history.shares.tolist()
    axis_titles = [
        f"{name} component ({share:.0%} of the variance at the last step)"
        for name, share in zip(("first", "second"), shares, strict=True)
    ]
    meaning = {
        "kind": "colour: how a token is spelled",
        "frequency": "colour: how often a token occurs in the recorded sequences",
    }[colour]
    return draw_embedding_step(
        history.tokens,
        places[at],
        (flat.min(axis=0), flat.max(axis=0)),
        embeddings.counts if colour == "frequency" else embeddings.kinds,
        embeddings.token,
        f"token vectors after step {history.steps[at]:,}",
        [
            f"one run, so no interval; n = {len(history.tokens)} tokens; ring: {embeddings.token}",
            meaning,
        ],
        (axis_titles[0], axis_titles[1]),
    )


def course_chart(embeddings: RecordedEmbeddings, at: int) -> Any:
    """Draw how far the vectors were from those of the last step."""
    history = embeddings.history
    return draw_embedding_course(
        history.steps.tolist(),
        {
            "drift: 1 - cosine to the last step": history.drift,
            f"turnover: share of {history.count} neighbours lost": history.turnover,
        },
        at,
        "how the vectors came there",
        [f"one run, so no interval; mean over {len(history.tokens)} tokens", "dashed: this step"],
    )
