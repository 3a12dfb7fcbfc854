"""The token embeddings of a trained run: which are similar, and how they changed in training.

import attnlab
from attnlab.analysis.embedding_report import embedding_history, embedding_report

run = attnlab.load("pronoun-multihead")
for neighbour in embedding_report(run, "animal", 5).neighbours[0].near:
    print(neighbour.token, neighbour.cosine)
history = embedding_history(run)
print(history.steps, history.drift, history.turnover)
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.figures.terminal_heatmap import printable_token
from attnlab.interp.embeddings import (
    Embeddings,
    align_history,
    neighbour_turnover,
    principal_components,
    vector_drift,
)
from attnlab.run_record.record import Record
from attnlab.run_record.vectors import load_vectors

if TYPE_CHECKING:
    # It imports Lightning, which takes seconds, and --help or a refused request must not wait.
    from attnlab.loaded_run import LoadedRun

SEQUENCES = 256
"""The number of validation sequences in which tokens are counted to order them by frequency."""
TOKENS, NEAR, NEAR_ONE = 12, 3, 10
"""The number of tokens of a report, of neighbours of each, and of neighbours of a named token."""


@dataclass(frozen=True)
class Neighbour:
    """A token whose vector has nearly the same direction as that of another token."""

    token: str
    cosine: float


@dataclass(frozen=True)
class TokenNeighbours:
    """A token with its nearest tokens, the nearest first."""

    token: str
    near: Sequence[Neighbour]


@dataclass(frozen=True)
class EmbeddingReport(Report):
    """The tokens of a run whose embeddings are most similar."""

    run: str
    step: int
    neighbours: Sequence[TokenNeighbours]


@dataclass(frozen=True, eq=False)
class EmbeddingPlane(Report):
    """All tokens on the first two principal components of their vectors."""

    run: str
    step: int
    tokens: Sequence[str]
    """The most frequent tokens first."""
    places: Float[Tensor, "token 2"]
    shares: Float[Tensor, " 2"]
    """The share of the variance, by component."""


@dataclass(frozen=True, eq=False)
class EmbeddingHistory(Report):
    """How the embeddings that a run recorded approached those of its last step."""

    run: str
    tokens: Sequence[str]
    """The most frequent tokens first."""
    steps: Int[np.ndarray, " step"]
    drift: Sequence[float]
    """By step: 1 - cosine to the last step after rotation onto it, mean over tokens."""
    turnover: Sequence[float]
    """By step: the share of a token's nearest tokens that are not among them at the last step."""
    count: int
    """The number of nearest tokens that the turnover counts."""
    places: Float[Tensor, "step token 2"]
    """On the first two principal components of the last step."""
    shares: Float[Tensor, " 2"]
    """The share of the variance at the last step, by component."""


def embedding_report(
    run: "LoadedRun", token_text: str | None = None, count: int | None = None
) -> EmbeddingReport:
    """Return the neighbours of a token, or those of the most frequent tokens.

    `token_text` is a token as it is, or as tables show it. Raises RequestError for an unknown
    token.
    """
    embeddings = run.embeddings
    if token_text is None:
        tokens = [embeddings.tokens[token_id] for token_id in token_ids_by_frequency(run)[:TOKENS]]
        count = NEAR if count is None else count
    else:
        tokens = [_match_token(token_text, embeddings.tokens)]
        count = NEAR_ONE if count is None else count
    neighbours = [
        TokenNeighbours(
            token,
            [Neighbour(near, cosine) for near, cosine in embeddings.neighbours(token, count)],
        )
        for token in tokens
    ]
    return EmbeddingReport(run.record.name, run.step, neighbours)


def embedding_plane(run: "LoadedRun") -> EmbeddingPlane:
    """Project all tokens on two principal components. Raises RequestError without a plane."""
    embeddings, token_ids = run.embeddings, token_ids_by_frequency(run)
    try:
        coordinates, variance_shares = principal_components(embeddings.vectors)
    except ValueError as error:
        raise RequestError(
            f"{run.record.name} has no plane to draw its tokens on: {error}"
        ) from error
    tokens = [embeddings.tokens[token_id] for token_id in token_ids]
    return EmbeddingPlane(
        run.record.name, run.step, tokens, coordinates[token_ids], variance_shares
    )


def embedding_history(run: "LoadedRun") -> EmbeddingHistory:
    """Return how the recorded embeddings moved over training.

    Raises RequestError where fewer than two steps were recorded, or where there is no plane.
    """
    token_ids = token_ids_by_frequency(run)
    return recorded_history(run.record, run.embeddings.tokens, token_ids)


def recorded_history(
    record: Record, names: Sequence[str], token_ids: Sequence[int]
) -> EmbeddingHistory:
    """Return how the recorded embeddings moved; `token_ids` orders the tokens, `names` names them.

    Raises RequestError as `embedding_history` does.
    """
    steps, vectors = load_vectors(record)
    if len(steps) < 2:
        raise RequestError(
            f"{record.name} recorded the vectors of {len(steps)} steps, and a history needs "
            "two; train with callbacks=default, whose `vectors` keeps them"
        )
    vectors_by_step = [torch.from_numpy(step_vectors) for step_vectors in vectors]
    last_vectors = vectors_by_step[-1]
    try:
        coordinates = align_history(vectors_by_step)
        _, variance_shares = principal_components(last_vectors)
    except ValueError as error:
        raise RequestError(f"{record.name} has no plane to draw its tokens on: {error}") from error
    token_ids = [token_id for token_id in token_ids if token_id < len(last_vectors)]
    num_nearest = min(NEAR_ONE, len(last_vectors) - 1)
    return EmbeddingHistory(
        run=record.name,
        tokens=[names[token_id] for token_id in token_ids],
        steps=steps,
        drift=[vector_drift(step_vectors, last_vectors) for step_vectors in vectors_by_step],
        turnover=[
            neighbour_turnover(step_vectors, last_vectors, num_nearest)
            for step_vectors in vectors_by_step
        ],
        count=num_nearest,
        places=coordinates[:, token_ids],
        shares=variance_shares,
    )


def encode_embedding_file(embeddings: Embeddings, ending: str) -> bytes:
    r"""Return every token with its vector as a file: ".csv", ".tsv" or ".npz".

    Control characters of a token are escaped, as in \n and \x00.
    """
    escaped_tokens = [escape(token) for token in embeddings.tokens]
    vectors = embeddings.vectors.numpy()
    if ending == ".npz":
        archive = io.BytesIO()
        np.savez(archive, tokens=np.array(escaped_tokens), vectors=vectors)
        return archive.getvalue()
    table = io.StringIO()
    writer = csv.writer(table, delimiter="," if ending == ".csv" else "\t", lineterminator="\n")
    writer.writerow(["token", *range(vectors.shape[1])])
    for token, vector in zip(escaped_tokens, vectors, strict=True):
        writer.writerow([token, *vector])
    return table.getvalue().encode()


def token_ids_by_frequency(run: "LoadedRun") -> list[int]:
    """Return the ids of all tokens, the most frequent in validation sequences first."""
    split = run.dataset.splits["validation"]
    batch = split.batch(np.arange(min(SEQUENCES, len(split))))
    token_ids = batch.inputs if batch.valid is None else batch.inputs[batch.valid]
    counts = torch.bincount(token_ids.flatten(), minlength=len(run.objective.inputs))
    return counts.argsort(descending=True, stable=True).tolist()


def escape(token: str) -> str:
    """Return a token with its unprintable characters as Python escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in token
    )


def _match_token(text: str, tokens: Sequence[str]) -> str:
    """Return the token that a text names, as it is or as tables show it; else the text."""
    if text in tokens:
        return text
    token_by_label = {
        label: token for token in tokens for label in (escape(token), printable_token(token))
    }
    return token_by_label.get(text, text)
