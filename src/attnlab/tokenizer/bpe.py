"""Pairs of bytes that stand together often as tokens, by the `tokenizers` library."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from attnlab.ranges import Tokens, ranged
from attnlab.tokenizer.base import Tokenizer, number_type, whole_words

PART = 1 << 13
"""The number of characters in one text for the library, which spreads many texts over all cores."""
TOGETHER = 1 << 18
"""The number of characters that the library gets at once, so that memory does not grow."""
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

        model = _untrained_model()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            initial_alphabet=sorted(_BYTES),
            show_progress=False,
        )
        # The library holds some hundred texts at once, so they must be short.
        short_texts = (
            short_text
            for text in _whole_word_texts(pieces)
            for short_text in _split_before_words(text)
        )
        model.train_from_iterator(short_texts, trainer)
        self._model = model
        return self._token_names()

    @property
    def state(self) -> str:
        """The library's own JSON."""
        return self._trained_model().to_str()

    def load_state(self, state: str) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._model = Library.from_str(state)
        except Exception as error:  # The library raises no class of its own.
            raise ValueError(f"its model is none of tokenizers: {error}") from error

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        model, dtype = self._trained_model(), number_type(len(vocabulary))
        for text in _whole_word_texts(pieces):
            encodings = model.encode_batch_fast(_split_before_words(text), add_special_tokens=False)
            yield np.concatenate([np.array(encoding.ids, dtype=dtype) for encoding in encodings])

    def tokenize(self, text: str) -> list[str]:
        return self._trained_model().encode(text, add_special_tokens=False).tokens

    def detokenize(self, names: Sequence[str]) -> str:
        return bytes(_BYTES[c] for name in names for c in name).decode(errors="replace")

    def num_bytes(self, name: str) -> int:
        return len(name)

    def _trained_model(self) -> Any:
        assert self._model is not None, "BPE is asked before its vocabulary is made or recalled"
        return self._model

    def _token_names(self) -> list[str]:
        """Return the names of all tokens, by id."""
        id_of = self._trained_model().get_vocab()
        return sorted(id_of, key=id_of.__getitem__)


def _untrained_model() -> Any:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    model = Library(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _bytes_by_character() -> dict[str, int]:
    """Return the byte that each character of a name stands for (Radford et al. 2019, `encoder.py`).

    Printable characters of Latin-1 are themselves; the other bytes are U+0100 on, in their order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unprintable = [byte for byte in range(NUM_BYTES) if byte not in printable]
    printable_bytes = {chr(byte): byte for byte in printable}
    return printable_bytes | {chr(0x100 + rank): byte for rank, byte in enumerate(unprintable)}


_BYTES = _bytes_by_character()


def _whole_word_texts(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield texts of about `TOGETHER` bytes, each of which ends where a word ends."""
    return whole_words(
        piece[start : start + TOGETHER]
        for piece in pieces
        for start in range(0, len(piece), TOGETHER)
    )


def _split_before_words(text: str) -> list[str]:
    """Split a text, about every `PART` characters, where the library begins a token in any case.

    That is before a space or newline right after a character that is no white space: the library's
    pattern never joins the two, and never looks behind.
    """
    parts, start = [], 0
    while len(text) - start > PART:
        stop = start + PART
        while stop < len(text) and not (text[stop] in " \n" and not text[stop - 1].isspace()):
            stop += 1
        parts.append(text[start:stop])
        start = stop
    return [*parts, text[start:]] if start < len(text) else parts
