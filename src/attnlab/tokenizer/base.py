"""The interface of tokenizers: from text to tokens and back."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Tokenizer(ABC):
    """Splits a text into tokens, each with a name; a corpus comes in pieces of any size.

    Pieces are bytes, and a character may lie on the border of two. With `learns`, the vocabulary is
    built from the training part alone, and other parts may hold unknown tokens. Without it
    (characters, bytes), it is that of the whole text: the set of characters says nothing of their
    order.
    """

    learns: bool = False

    _of_vocabulary: tuple[Sequence[str], Any] = ((), None)

    @property
    def key(self) -> str:
        """A name for the tokenizer and its knobs, for the name of a cache entry."""
        return type(self).__name__.lower()

    @abstractmethod
    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        """Build the list of a corpus's tokens. Raises ValueError if it cannot be read."""

    @property
    def state(self) -> str:
        """The state that `vocabulary` has learnt beside the list that it returned, as a text."""
        return ""

    def load_state(self, state: str) -> None:
        """Load the state that an earlier process has learnt, in place of `vocabulary`."""
        assert not state, f"{type(self).__name__} learns nothing beside its vocabulary"

    def once(self, build: Callable[[Sequence[str]], T], vocabulary: Sequence[str]) -> T:
        """Return what `build` makes of a vocabulary, made anew for another list alone.

        So many documents are encoded one by one at the cost of their tokens.
        """
        if self._of_vocabulary[0] is not vocabulary:
            self._of_vocabulary = vocabulary, build(vocabulary)
        return self._of_vocabulary[1]

    @abstractmethod
    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the ids of the corpus's tokens, in order, as arrays."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Return the names of a text's tokens, also of those that the vocabulary lacks."""

    @abstractmethod
    def detokenize(self, names: Sequence[str]) -> str:
        """Return the text of tokens: the inverse of `tokenize`."""

    @abstractmethod
    def num_bytes(self, name: str) -> int:
        """Count the bytes of the text (UTF-8) that a token stands for."""


def number_type(num_tokens: int) -> type[np.unsignedinteger]:
    """Return the smallest integer type that holds all token ids."""
    dtypes = np.uint8, np.uint16, np.uint32
    return next(dtype for dtype in dtypes if num_tokens <= np.iinfo(dtype).max + 1)


def texts(pieces: Iterable[bytes]) -> Iterator[str]:
    """Decode a text that comes in pieces. Raises ValueError if it is binary, or not UTF-8."""
    decoder, offset, pending = codecs.getincrementaldecoder("utf-8")(), 0, 0
    try:
        for piece in pieces:
            pending = len(decoder.getstate()[0])
            text = decoder.decode(piece)
            if (zero := piece.find(b"\0")) >= 0:
                raise ValueError(
                    f"the text has a zero byte at {offset + zero:,}, as a binary file or UTF-16 "
                    "has; convert it, or take dataset/tokenizer=bytes"
                )
            yield text
            offset += len(piece)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at "
            f"{offset - pending + error.start:,}; convert it, or take dataset/tokenizer=bytes"
        ) from error


def whole_words(pieces: Iterable[bytes]) -> Iterator[str]:
    """Decode a text, cut only before the white space that follows a word.

    Which of these places are cut depends on the pieces. A text without a space is one piece.
    """
    pending: list[str] = []
    for text in texts(pieces):
        cut = _last_word_end(text)
        if cut:
            yield "".join([*pending, text[:cut]])
            pending = []
        pending.append(text[cut:])
    if rest := "".join(pending):
        yield rest


def _last_word_end(text: str) -> int:
    """Return the index of the last space or newline right after a word; 0 if there is none."""
    index = len(text)
    while (index := max(text.rfind(" ", 0, index), text.rfind("\n", 0, index))) > 0:
        if not text[index - 1].isspace():
            return index
    return 0
