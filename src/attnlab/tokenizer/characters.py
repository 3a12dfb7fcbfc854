"""Characters as tokens."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from attnlab.tokenizer.base import Tokenizer, number_type, texts


class Characters(Tokenizer):
    """A token for each Unicode character that the corpus has, in the order of their code points.

    The corpus is UTF-8. "tea" is t, e, a.
    """

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        occurs = np.zeros(0x110000, dtype=bool)
        for code_points in _code_points(pieces):
            occurs[code_points] = True
        return [chr(code_point) for code_point in np.flatnonzero(occurs)]

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        id_of = self.once(_ids, vocabulary)
        for code_points in _code_points(pieces):
            yield id_of[code_points]

    def tokenize(self, text: str) -> list[str]:
        return list(text)

    def detokenize(self, names: Sequence[str]) -> str:
        return "".join(names)

    def num_bytes(self, name: str) -> int:
        return len(name.encode())


def _ids(vocabulary: Sequence[str]) -> np.ndarray:
    """Return the id of each code point."""
    id_of = np.zeros(0x110000, dtype=number_type(len(vocabulary)))
    id_of[[ord(name) for name in vocabulary]] = np.arange(len(vocabulary))
    return id_of


def _code_points(pieces: Iterable[bytes]) -> Iterator[np.ndarray]:
    for text in texts(pieces):
        yield np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
