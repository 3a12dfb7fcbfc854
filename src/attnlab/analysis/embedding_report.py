"""The vectors that a trained run reads for its tokens: which are alike, and how they came there.

import attnlab
from attnlab.analysis.embedding_report import embedding_course, embedding_report

run = attnlab.load("pronoun-multihead")
for neighbour in embedding_report(run, "animal", 5).neighbours[0].near:
    print(neighbour.token, neighbour.cosine)
course = embedding_course(run)
print(course.steps, course.drift, course.turnover)
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
from attnlab.figures.shades import name
from attnlab.interp.embeddings import Embeddings, course, drift, principal, turnover
from attnlab.run_record.vectors import recorded

if TYPE_CHECKING:
    # It imports Lightning, for which no help or refusal of a command should wait.
    from attnlab.loaded_run import LoadedRun

SEQUENCES = 256
"""Validation sequences in which tokens are counted, to begin with the most frequent."""
TOKENS, NEAR, NEAR_ONE = 12, 3, 10
"""Tokens of a report unless one is named; their neighbours, and those of one that is named."""


@dataclass(frozen=True)
class Neighbour:
    """A token whose vector points nearly the same way as that of another one."""

    token: str
    cosine: float


@dataclass(frozen=True)
class TokenNeighbours:
    """A token with those nearest to it, the nearest first."""

    token: str
    near: Sequence[Neighbour]


@dataclass(frozen=True)
class EmbeddingReport(Report):
    """Which tokens a run holds alike."""

    run: str
    step: int
    neighbours: Sequence[TokenNeighbours]


@dataclass(frozen=True, eq=False)
class EmbeddingPlane(Report):
    """All tokens on the first two principal components of their vectors."""

    run: str
    step: int
    tokens: Sequence[str]
    """The most frequent ones first."""
    places: Float[Tensor, "token 2"]
    shares: Float[Tensor, " 2"]
    """Of the variance, by component."""


@dataclass(frozen=True, eq=False)
class EmbeddingCourse(Report):
    """How the vectors that a run recorded became those of its last step."""

    run: str
    tokens: Sequence[str]
    """The most frequent ones first."""
    steps: Int[np.ndarray, " step"]
    drift: Sequence[float]
    """By step: 1 - cosine to the last step, once turned to it, mean over tokens."""
    turnover: Sequence[float]
    """By step: the share of a token's nearest ones that are others at the last step."""
    count: int
    """How many nearest tokens that is."""
    places: Float[Tensor, "step token 2"]
    """On the first two principal components of the last step."""
    shares: Float[Tensor, " 2"]
    """Of the variance at the last step, by component."""


def embedding_report(
    run: "LoadedRun", word: str | None = None, count: int | None = None
) -> EmbeddingReport:
    """Return the neighbours of a token, or those of the most frequent ones.

    `word` is a token as it is, or as tables show it. Raises RequestError for what is no token.
    """
    embeddings = run.embeddings
    if word is None:
        tokens = [embeddings.tokens[at] for at in tokens_by_frequency(run)[:TOKENS]]
        count = NEAR if count is None else count
    else:
        tokens = [_token(word, embeddings.tokens)]
        count = NEAR_ONE if count is None else count
    neighbours = [
        TokenNeighbours(token, [Neighbour(*near) for near in embeddings.neighbours(token, count)])
        for token in tokens
    ]
    return EmbeddingReport(run.record.name, run.step, neighbours)


def embedding_plane(run: "LoadedRun") -> EmbeddingPlane:
    """Return where all tokens lie. Raises RequestError for vectors that have no plane."""
    embeddings, order = run.embeddings, tokens_by_frequency(run)
    try:
        places, shares = principal(embeddings.vectors)
    except ValueError as error:
        raise RequestError(
            f"{run.record.name} has no plane to draw its tokens on: {error}"
        ) from error
    tokens = [embeddings.tokens[at] for at in order]
    return EmbeddingPlane(run.record.name, run.step, tokens, places[order], shares)


def embedding_course(run: "LoadedRun") -> EmbeddingCourse:
    """Return how the vectors that were recorded moved over training.

    Raises RequestError where fewer than two steps were recorded, and for vectors without a plane.
    """
    steps, vectors = recorded(run.record)
    if len(steps) < 2:
        raise RequestError(
            f"{run.record.name} recorded the vectors of {len(steps)} steps, and a course needs "
            "two; train with callbacks=default, whose `vectors` keeps them"
        )
    by_step = [torch.from_numpy(of_step) for of_step in vectors]
    last = by_step[-1]
    try:
        places, (_, shares) = course(by_step), principal(last)
    except ValueError as error:
        raise RequestError(
            f"{run.record.name} has no plane to draw its tokens on: {error}"
        ) from error
    kept = [at for at in tokens_by_frequency(run) if at < len(last)]
    count = min(NEAR_ONE, len(last) - 1)
    return EmbeddingCourse(
        run=run.record.name,
        tokens=[run.embeddings.tokens[at] for at in kept],
        steps=steps,
        drift=[drift(of_step, last) for of_step in by_step],
        turnover=[turnover(of_step, last, count) for of_step in by_step],
        count=count,
        places=places[:, kept],
        shares=shares,
    )


def embedding_table(embeddings: Embeddings, ending: str) -> bytes:
    r"""Return every token with its vector as a file: ".csv", ".tsv" or ".npz".

    Control characters of a token are escaped, as in \n and \x00.
    """
    names, vectors = [escaped(token) for token in embeddings.tokens], embeddings.vectors.numpy()
    if ending == ".npz":
        content = io.BytesIO()
        np.savez(content, tokens=np.array(names), vectors=vectors)
        return content.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter="," if ending == ".csv" else "\t", lineterminator="\n")
    writer.writerow(["token", *range(vectors.shape[1])])
    for token, vector in zip(names, vectors, strict=True):
        writer.writerow([token, *vector])
    return text.getvalue().encode()


def tokens_by_frequency(run: "LoadedRun") -> list[int]:
    """Return the numbers of all tokens, the most frequent in validation sequences first."""
    split = run.dataset.splits["validation"]
    batch = split.batch(np.arange(min(SEQUENCES, len(split))))
    inputs = batch.inputs if batch.valid is None else batch.inputs[batch.valid]
    counts = torch.bincount(inputs.flatten(), minlength=len(run.objective.inputs))
    return counts.argsort(descending=True, stable=True).tolist()


def escaped(token: str) -> str:
    """Return a token with what has no sign of its own written as Python does."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in token
    )


def _token(word: str, tokens: Sequence[str]) -> str:
    """Find a token by its name, or by what is shown of it."""
    if word in tokens:
        return word
    return {shown: token for token in tokens for shown in (escaped(token), name(token))}.get(
        word, word
    )
