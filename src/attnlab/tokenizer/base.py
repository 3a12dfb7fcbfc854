"""What every tokenizer is: from text to tokens and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Tokenizer(ABC):
    """Parts a text into tokens, each with a name; a corpus comes in pieces of any size.

    Pieces are bytes, and a character may lie on the border of two.
    """

    @property
    def key(self) -> str:
        """What decides the tokens of a text, for the name of a cache."""
        return type(self).__name__.lower()

    @abstractmethod
    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        """List the tokens of a corpus. Raises ValueError where it cannot be read."""

    @abstractmethod
    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        """Give the numbers of the tokens of each piece, one after the other."""

    @abstractmethod
    def part(self, text: str) -> list[str]:
        """Part a text into the names of its tokens, known or not."""

    @abstractmethod
    def join(self, names: Sequence[str]) -> str:
        """Put tokens together: the inverse of `part`."""


def number_type(num_tokens: int) -> type[np.unsignedinteger]:
    """Give the smallest type that can number the tokens."""
    return next(t for t in (np.uint8, np.uint16, np.uint32) if num_tokens <= np.iinfo(t).max + 1)
