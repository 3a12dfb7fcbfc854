"""Bytes as tokens."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from attnlab.tokenizer.base import Tokenizer

NAMES = [chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in range(256)]
NUMBERS = {name: byte for byte, name in enumerate(NAMES)}


class Bytes(Tokenizer):
    r"""A token for each of the 256 bytes, whatever the corpus is.

    Named as their ASCII character, from 128 on as `\xc3`. "é" is \xc3, \xa9.
    """

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        return list(NAMES)

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        for piece in pieces:
            yield np.frombuffer(piece, dtype=np.uint8)

    def tokenize(self, text: str) -> list[str]:
        return [NAMES[byte] for byte in text.encode()]

    def detokenize(self, names: Sequence[str]) -> str:
        return bytes(NUMBERS[name] for name in names).decode(errors="replace")

    def num_bytes(self, name: str) -> int:
        return 1
