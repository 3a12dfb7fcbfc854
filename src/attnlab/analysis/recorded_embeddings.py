"""The recorded embedding vectors of a run over its steps, without its model and its data.

from attnlab.analysis.recorded_embeddings import recorded_embeddings

embeddings = recorded_embeddings(Record(Path("runs/mqar-...")), "k1")
print(embeddings.history.drift, embeddings.neighbours)
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from attnlab.analysis.embedding_report import (
    NEAR_ONE,
    EmbeddingHistory,
    Neighbour,
    recorded_history,
)
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.embeddings import Embeddings
from attnlab.run_record.pattern_table import TABLE as PATTERNS
from attnlab.run_record.read import refuse_damaged_rows
from attnlab.run_record.record import Record
from attnlab.run_record.vectors import load_token_names, load_vectors

NUMBERED = re.compile(r"([^\W\d_]{1,8})\d+")
"""A token such as k23: a letter or word, and a number."""


@dataclass(frozen=True, eq=False)
class RecordedEmbeddings(Report):
    """How the recorded vectors moved, and what the record says of their tokens."""

    run: str
    is_named: bool
    """Whether the record names the tokens; if not, a token has its number."""
    kinds: Sequence[str]
    """By token: how it is spelled (`token_kind`)."""
    counts: Sequence[int]
    """By token: how often it occurs in the recorded sequences."""
    history: EmbeddingHistory
    """In the order of the vocabulary."""
    token: str
    neighbours: Sequence[Neighbour]
    """The recorded tokens nearest to `token` at the last step."""


def recorded_embeddings(record: Record, token: str = "") -> RecordedEmbeddings:
    """Return the recorded embeddings of a run, and the neighbours of a token (empty: the first).

    Raises RequestError where fewer than two steps were recorded, and for a token that was not.
    """
    names = load_token_names(record)
    steps, vectors = load_vectors(record)
    num_tokens = vectors.shape[1] if len(steps) else 0
    tokens = names or [f"token {number}" for number in range(num_tokens)]
    history = recorded_history(record, tokens, range(num_tokens))
    counts = _count_tokens(record) if names else {}
    if token and token not in tokens:
        raise RequestError(f"token {token[:40]!r} is none of the recorded ones")
    token = token or tokens[0]
    # A vocabulary may have a token twice; its first vector then has the neighbours.
    near = Embeddings(tokens, torch.from_numpy(vectors[-1])).neighbours(
        token, min(NEAR_ONE, num_tokens - 1)
    )
    return RecordedEmbeddings(
        run=record.name,
        is_named=names is not None,
        kinds=[token_kind(name) if names else "token" for name in tokens],
        counts=[counts.get(name, 0) for name in tokens],
        history=history,
        token=token,
        neighbours=[Neighbour(name, cosine) for name, cosine in near],
    )


def token_kind(token: str) -> str:
    """Return how a token is spelled: as a word, a number, `k...` for k23, or otherwise."""
    if match := NUMBERED.fullmatch(token):
        return f"{match[1]} with a number"
    text = token.strip()
    if not text:
        return "space"
    if text.isnumeric():
        return "number"
    if any(character.isalpha() for character in text):
        return "special" if not text[0].isalnum() and not text[-1].isalnum() else "word"
    is_mark = all(unicodedata.category(character)[0] in "PS" for character in text)
    return "punctuation" if is_mark else "other"


def _count_tokens(record: Record) -> Mapping[str, int]:
    """Count the tokens of the recorded sequences, each sequence once."""
    sequences: set[tuple[str, ...]] = set()
    table = record.rows(PATTERNS)
    with refuse_damaged_rows(record.path, PATTERNS):
        if table.num_rows:
            for row in table.select(["probe", "tokens"]).to_pylist():
                sequences.add((row["probe"], *row["tokens"]))
    return Counter(name for _, *tokens in sequences for name in tokens)
