"""Characters as tokens."""

import codecs
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from attnlab.tokenizer.base import Tokenizer, number_type


class Characters(Tokenizer):
    """A token for each Unicode character that the corpus has, in the order of their code points.

    The corpus is UTF-8. "tea" is t, e, a.
    """

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        there = np.zeros(0x110000, dtype=bool)
        for points in _code_points(pieces):
            there[points] = True
        return [chr(point) for point in np.flatnonzero(there)]

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        number = np.zeros(0x110000, dtype=number_type(len(vocabulary)))
        number[[ord(name) for name in vocabulary]] = np.arange(len(vocabulary))
        for points in _code_points(pieces):
            yield number[points]

    def part(self, text: str) -> list[str]:
        return list(text)

    def join(self, names: Sequence[str]) -> str:
        return "".join(names)


def _code_points(pieces: Iterable[bytes]) -> Iterator[np.ndarray]:
    decoder, read, pending = codecs.getincrementaldecoder("utf-8")(), 0, 0
    try:
        for piece in pieces:
            pending = len(decoder.getstate()[0])
            text = decoder.decode(piece)
            yield np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
            read += len(piece)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at "
            f"{read - pending + error.start:,}; convert it, or take dataset/tokenizer=bytes"
        ) from error
