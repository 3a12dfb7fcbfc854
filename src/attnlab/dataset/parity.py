"""Whether the number of ones is odd."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays

END = "="
TOKENS = ["0", "1", END, "<pad>"]


@ranged
class Parity(Task):
    """Says whether a string of bits has an odd number of ones (Deletang et al. 2023, table 1).

    "1 0 1 1 =" has three ones, so the label at "=" is odd. Bits are uniform, and lengths uniform
    in `min_length`..`length`; each N of `test_lengths` makes a test of longer strings. The layout
    is zoology's, whose labels are also 0 for even and 1 for odd: bits, an end token, one label on
    it. With `cumulative` there is no end token, and every position is asked for the parity up to
    itself, as a token: "1 0 1 1" is answered by "1 1 0 1". Zoology's strings are all of one length:
    `min_length` equal to `length` makes its rows, number by number.

    Chance is 1/2: short of all the bits, nothing is known. The best possible score is 1. Deletang
    et al. draw fresh strings at every step. Here the splits share no string, so the shortest ones,
    of which there are few, stand in test and validation, and hardly any of them in training.
    """

    chance = 1 / 2

    def __init__(
        self,
        *,
        min_length: Tokens = 1,
        length: Tokens = 40,
        test_lengths: Sequence[Tokens] = (100,),
        cumulative: bool = False,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        self.tokens, self.cumulative = TOKENS, cumulative
        self.classes = None if cumulative else ["even", "odd"]
        self.max_length = max(length, *test_lengths) if test_lengths else length
        self.max_length += int(not cumulative)

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        length = generator.integers(low, high, size=(n, 1), dtype=np.int16, endpoint=True)
        bits = generator.integers(2, size=(n, high + 1), dtype=np.uint8)
        positions = np.arange(high + 1)
        inside = positions < length
        inputs = np.where(inside, bits, np.where(positions == length, np.uint8(2), np.uint8(3)))
        if self.cumulative:
            odd = (bits.cumsum(axis=1, dtype=np.uint8) & 1).astype(np.int16)
            inputs[positions[None] == length] = 3
            targets = np.where(inside, odd, np.int16(IGNORE))
            return ExampleArrays(
                inputs[:, :-1].copy(), targets[:, :-1].copy(), None, inside[:, :-1].copy()
            )
        targets = ((bits * inside).sum(axis=1, keepdims=True) & 1).astype(np.int16)
        return ExampleArrays(inputs, targets, length, positions <= length)

    def label_positions(self, words: Sequence[str]) -> list[int] | None:
        if self.cumulative:
            return None
        if words[-1] != END:
            raise ValueError(f'a string ends with "{END}", where it is asked about')
        return [len(words) - 1]

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of bits of each example."""
        assert batch.valid is not None
        return {"length": batch.valid.sum(dim=1) - int(not self.cumulative)}

    def show(self, split: str = "train", index: int = 0) -> str:
        if not self.cumulative:
            return super().show(split, index)
        inputs, targets, _, valid = self.splits[split][index][:4]
        assert valid is not None
        answers = self.decode(targets[valid].tolist())
        return f"{self.decode(inputs[valid].tolist())}\nanswers: {answers}"
