"""Words as tokens, as language models of WikiText have them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from attnlab.ranges import Count, ranged
from attnlab.tokenizer.base import Tokenizer, number_type, whole_words

UNKNOWN, LINE = "<unk>", "<eos>"


@ranged
class Words(Tokenizer):
    r"""A token for each word of the training part, the most frequent first (Merity et al. 2017).

    Words are what stands between white space, and every end of a line is `<eos>`: "a b\n" is a, b,
    <eos>. `<unk>` stands for a word that training has fewer than `min_count` times, or beyond the
    `max_size` tokens (null: no limit). A token's bytes are those of its name and of one separator
    after it, `<eos>` is 1 byte: so bits per byte are those of the text with `<unk>` written in it.
    """

    learns = True

    def __init__(self, *, min_count: Count = 1, max_size: Count | None = None) -> None:
        if max_size is not None and max_size < 3:
            raise ValueError(f"max_size={max_size} must be at least 3: {UNKNOWN}, {LINE}, a word")
        self.min_count, self.max_size = min_count, max_size

    @property
    def key(self) -> str:
        return f"words-{self.min_count}-{self.max_size}"

    def vocabulary(self, pieces: Iterable[bytes]) -> list[str]:
        counts: Counter[str] = Counter()
        for text in whole_words(pieces):
            counts.update(text.split())
        for name in (UNKNOWN, LINE):
            counts.pop(name, None)
        frequent = [(-count, word) for word, count in counts.items() if count >= self.min_count]
        max_words = None if self.max_size is None else self.max_size - 2
        return [UNKNOWN, LINE, *(word for _, word in sorted(frequent)[:max_words])]

    def encode(self, pieces: Iterable[bytes], vocabulary: Sequence[str]) -> Iterator[np.ndarray]:
        id_of = self.once(_ids, vocabulary)
        unknown_id, dtype = id_of[UNKNOWN], number_type(len(vocabulary))
        for text in whole_words(pieces):
            words = self.tokenize(text)
            ids = (id_of.get(word, unknown_id) for word in words)
            yield np.fromiter(ids, dtype=dtype, count=len(words))

    def tokenize(self, text: str) -> list[str]:
        return text.replace("\n", f" {LINE} ").split()

    def detokenize(self, names: Sequence[str]) -> str:
        lines: list[list[str]] = [[]]
        for name in names:
            if name == LINE:
                lines.append([])
            else:
                lines[-1].append(name)
        return "\n".join(map(" ".join, lines))

    def num_bytes(self, name: str) -> int:
        return 1 if name == LINE else len(name.encode()) + 1


def _ids(vocabulary: Sequence[str]) -> dict[str, int]:
    return {word: token_id for token_id, word in enumerate(vocabulary)}
