"""What every tokenizer is: from text to tokens and back."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Tokenizer(ABC):
    """Parts a text into tokens, each with a name; a corpus comes in pieces of any size.

    Pieces are bytes, and a character may lie on the border of two. Where `learns`, the vocabulary
    is made of the training part alone, and what else it has may be unknown. Else (characters,
    bytes) it is that of the whole text: which characters there are tells nothing of their order.
    """

    learns: bool = False

    @property
    def key(self) -> str:
        """What decides the tokens of a text, for the name of a cache."""
        return type(self).__name__.lower()

    @abstractmethod
    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        """List the tokens of a corpus. Raises ValueError where it cannot be read."""

    @property
    def learnt(self) -> str:
        """What `vocabulary` has found beside the list that it gave, as a text to keep."""
        return ""

    def recall(self, learnt: str) -> None:
        """Take what an earlier process has learnt, instead of `vocabulary`."""
        assert not learnt, f"{type(self).__name__} learns nothing beside its vocabulary"

    @abstractmethod
    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        """Give the numbers of the tokens of each piece, one after the other."""

    @abstractmethod
    def part(self, text: str) -> list[str]:
        """Part a text into the names of its tokens, known or not."""

    @abstractmethod
    def join(self, names: Sequence[str]) -> str:
        """Put tokens together: the inverse of `part`."""

    @abstractmethod
    def num_bytes(self, name: str) -> int:
        """Count the bytes of the text (UTF-8) that a token stands for."""


def number_type(num_tokens: int) -> type[np.unsignedinteger]:
    """Give the smallest type that can number the tokens."""
    return next(t for t in (np.uint8, np.uint16, np.uint32) if num_tokens <= np.iinfo(t).max + 1)


def texts(pieces: Iterable[bytes]) -> Iterator[str]:
    """Decode a text that comes in pieces. Raises ValueError where it is not UTF-8, or binary."""
    decoder, read, pending = codecs.getincrementaldecoder("utf-8")(), 0, 0
    try:
        for piece in pieces:
            pending = len(decoder.getstate()[0])
            text = decoder.decode(piece)
            if (zero := piece.find(b"\0")) >= 0:
                raise ValueError(
                    f"the text has a zero byte at {read + zero:,}, as a binary file or UTF-16 has; "
                    "convert it, or take dataset/tokenizer=bytes"
                )
            yield text
            read += len(piece)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at "
            f"{read - pending + error.start:,}; convert it, or take dataset/tokenizer=bytes"
        ) from error


def whole_words(pieces: Iterable[bytes]) -> Iterator[str]:
    """Decode a text, cut only before the white space that follows a word.

    How it is cut beyond that hangs on the pieces. A text without a space is one piece.
    """
    held: list[str] = []
    for text in texts(pieces):
        cut = _border(text)
        if cut:
            yield "".join([*held, text[:cut]])
            held = []
        held.append(text[cut:])
    if rest := "".join(held):
        yield rest


def _border(text: str) -> int:
    """Find the last space or newline right after a word; 0 for none."""
    at = len(text)
    while (at := max(text.rfind(" ", 0, at), text.rfind("\n", 0, at))) > 0:
        if not text[at - 1].isspace():
            return at
    return 0
