"""A token that begins each document, beside those of another tokenizer."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from attnlab.tokenizer.base import Tokenizer

BOUNDARY = "<document>"
BEGIN = b""
"""The piece of a corpus that begins a document; all other pieces have bytes."""


class WithBoundary(Tokenizer):
    """Another tokenizer, and the token `<document>` that begins each document.

    Every document is tokenised by itself. In a text that a person gives, `<document>` is that
    token; in a corpus these characters are text as all others. It stands for no byte.
    """

    def __init__(self, inner: Tokenizer) -> None:
        self.inner, self.learns = inner, inner.learns

    @property
    def key(self) -> str:
        return f"{self.inner.key}-documents"

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        tokens = self.inner.vocabulary(piece for piece in pieces if piece != BEGIN)
        if BOUNDARY in tokens:
            raise ValueError(
                f"{BOUNDARY} is a word of the text, and the token that begins a document; replace "
                "the word"
            )
        return [*tokens, BOUNDARY]

    @property
    def state(self) -> str:
        return self.inner.state

    def load_state(self, state: str) -> None:
        self.inner.load_state(state)

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        # One list for all documents: the inner tokenizer builds its table of ids once for it.
        inner_vocabulary, boundary = vocabulary[:-1], np.array([len(vocabulary) - 1])
        for begins, group in groupby(pieces, lambda piece: piece == BEGIN):
            if begins:
                yield from (boundary for _ in group)
            else:
                yield from self.inner.encode(group, inner_vocabulary)

    def tokenize(self, text: str) -> list[str]:
        first, *others = (
            self.inner.tokenize(part) if part else [] for part in text.split(BOUNDARY)
        )
        return [*first, *(name for names in others for name in (BOUNDARY, *names))]

    def detokenize(self, names: Sequence[str]) -> str:
        return "".join(
            BOUNDARY * len(run) if is_boundary else self.inner.detokenize(run)
            for is_boundary, run in (
                (key, [*group]) for key, group in groupby(names, lambda name: name == BOUNDARY)
            )
        )

    def num_bytes(self, name: str) -> int:
        return 0 if name == BOUNDARY else self.inner.num_bytes(name)
