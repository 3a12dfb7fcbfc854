"""Whether the number of changes in a string is even."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

END = "="


@ranged
class EvenPairs(Task):
    """Says whether the pairs "a b" and "b a" in a string are even in number (Deletang et al. 2023).

    "a a b b a =" has one "a b" and one "b a", so the label at "=" is even, class 0 (odd: 1). That
    is so exactly where the first letter is the last one too, which makes this the easiest of their
    regular tasks (table 1, appendix A). Letters are uniform, and lengths uniform in
    `min_length`..`length`; each N of `test_lengths` makes a test of longer strings.

    Chance is 1/2 and the best possible score 1. Deletang et al. begin at 1 letter, where the answer
    is always even; here a string has at least 2. The splits share no string, so the shortest ones,
    of which there are few, stand in test and validation, and hardly any of them in training.
    """

    chance = 1 / 2

    def __init__(
        self,
        *,
        min_length: Tokens = 2,
        length: Tokens = 40,
        test_lengths: Sequence[Tokens] = (100,),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        if min_length < 2:
            raise ValueError(f"min_length={min_length} must be at least 2, for there to be a pair")
        self.tokens, self.classes = ["a", "b", END, "<pad>"], ["even", "odd"]
        self.max_length = 1 + max(length, *test_lengths) if test_lengths else 1 + length

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        length = generator.integers(low, high, size=(n, 1), dtype=np.int16, endpoint=True)
        letters = generator.integers(2, size=(n, high + 1), dtype=np.uint8)
        positions = np.arange(high + 1)
        tail = np.where(positions == length, np.uint8(2), np.uint8(3))
        inputs = np.where(positions < length, letters, tail)
        change = (letters[:, 1:] != letters[:, :-1]) & (positions[1:] < length)
        targets = (change.sum(axis=1, keepdims=True) & 1).astype(np.int16)
        return ExampleArrays(inputs, targets, length, positions <= length)

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words[-1] != END:
            raise ValueError(f'a string ends with "{END}", where it is asked about')
        return [len(words) - 1]

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of letters of each example."""
        assert batch.valid is not None
        return {"length": batch.valid.sum(dim=1) - 1}
