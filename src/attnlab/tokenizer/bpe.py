"""Pairs of bytes that stand together often as tokens, by the `tokenizers` library."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from attnlab.ranges import Tokens, ranged
from attnlab.tokenizer.base import Tokenizer, number_type, whole_words

PART = 1 << 13
"""Characters that the library parts as one text; many of them at once go to all cores."""
TOGETHER = 1 << 18
"""Characters that are given to the library at once, so that memory does not grow."""
NUM_BYTES = 256


@ranged
class BPE(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; bytes: Radford et al. 2019, sec. 2.2).

    Begins with the 256 bytes, and joins the pair that the training part has most often, until there
    are `vocab_size` tokens. No token goes beyond a word with the space before it. Names are written
    as GPT-2 writes them: "Ġthe" is " the", "Ċ" a newline. Every text can be parted.
    """

    learns = True

    def __init__(self, *, vocab_size: Tokens = 8192) -> None:
        if vocab_size < NUM_BYTES:
            raise ValueError(f"vocab_size={vocab_size} must be at least 256, a token for each byte")
        self.vocab_size = vocab_size
        self._model: Any = None

    @property
    def key(self) -> str:
        return f"bpe-{self.vocab_size}"

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        from tokenizers import trainers

        model = _empty()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            initial_alphabet=sorted(_BYTES),
            show_progress=False,
        )
        # The library holds some hundred texts at once, so they are short ones.
        texts = (part for text in _texts(pieces) for part in _parts(text))
        model.train_from_iterator(texts, trainer)
        self._model = model
        return self._names()

    @property
    def learnt(self) -> str:
        """The library's own JSON."""
        return self._made().to_str()

    def recall(self, learnt: str) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._model = Library.from_str(learnt)
        except Exception as error:  # The library raises no class of its own.
            raise ValueError(f"its model is none of tokenizers: {error}") from error

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        model, kind = self._made(), number_type(len(vocabulary))
        for text in _texts(pieces):
            parted = model.encode_batch_fast(_parts(text), add_special_tokens=False)
            numbers = [np.array(part.ids, dtype=kind) for part in parted]
            yield np.concatenate(numbers)

    def part(self, text: str) -> list[str]:
        return self._made().encode(text, add_special_tokens=False).tokens

    def join(self, names: Sequence[str]) -> str:
        return bytes(_BYTES[c] for name in names for c in name).decode(errors="replace")

    def num_bytes(self, name: str) -> int:
        return len(name)

    def _made(self) -> Any:
        assert self._model is not None, "BPE is asked before its vocabulary is made or recalled"
        return self._model

    def _names(self) -> list[str]:
        numbers = self._made().get_vocab()
        return sorted(numbers, key=numbers.__getitem__)


def _empty() -> Any:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    model = Library(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _alphabet() -> dict[str, int]:
    """Give the byte that each character of a name stands for (Radford et al. 2019, `encoder.py`).

    Printable characters of Latin-1 are themselves; the other bytes are U+0100 on, in their order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(NUM_BYTES) if byte not in printable]
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(0x100 + at): byte for at, byte in enumerate(others)}


_BYTES = _alphabet()


def _texts(pieces: Iterable[bytes]) -> Iterator[str]:
    """Give pieces of that size that end where a word ends."""
    return whole_words(
        piece[start : start + TOGETHER]
        for piece in pieces
        for start in range(0, len(piece), TOGETHER)
    )


def _parts(text: str) -> list[str]:
    """Cut a piece into texts where the library would begin a token in any case.

    That is before a space or newline right after a character that is no white space: its pattern
    never joins the two, and looks behind nowhere.
    """
    parts, start = [], 0
    while len(text) - start > PART:
        at = start + PART
        while at < len(text) and not (text[at] in " \n" and not text[at - 1].isspace()):
            at += 1
        parts.append(text[start:at])
        start = at
    return [*parts, text[start:]] if start < len(text) else parts
