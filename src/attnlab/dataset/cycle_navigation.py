"""Where a walk on a circle ends."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

END = "="
MOVES = ["-", "0", "+"]


@ranged
class CycleNavigation(Task):
    """Follows steps on a circle of `num_places`, from place 0 (Deletang et al. 2023, table 1).

    "+" goes one place on, "-" one back, and "0" stays: "+ + 0 - - - =" ends one before 0, so the
    label at "=" is 4 where there are 5 places. Moves are uniform, and lengths uniform in
    `min_length`..`length`; each N of `test_lengths` makes a test of longer walks.

    Chance is 1 / num_places; walks of a few steps end near 0 more often. The best possible score
    is 1. Deletang et al. draw fresh walks at every step. Here the splits share none, so the
    shortest ones, of which there are few, stand in test and validation, hardly any in training.
    """

    def __init__(
        self,
        *,
        num_places: Tokens = 5,
        min_length: Tokens = 1,
        length: Tokens = 40,
        test_lengths: Sequence[Tokens] = (100,),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        if num_places < 2:
            raise ValueError(f"num_places={num_places} must be at least 2")
        self.num_places, self.chance = num_places, 1 / num_places
        self.tokens = [*MOVES, END, "<pad>"]
        self.classes = [str(place) for place in range(num_places)]
        self.max_length = 1 + max(length, *test_lengths) if test_lengths else 1 + length

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        length = generator.integers(low, high, size=(n, 1), dtype=np.int16, endpoint=True)
        moves = generator.integers(3, size=(n, high + 1), dtype=np.uint8)
        positions = np.arange(high + 1)
        inside = positions < length
        inputs = np.where(inside, moves, np.where(positions == length, np.uint8(3), np.uint8(4)))
        steps = (moves * inside).sum(axis=1, keepdims=True, dtype=np.int32) - length
        return ExampleArrays(inputs, steps % self.num_places, length, positions <= length)

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words[-1] != END:
            raise ValueError(f'a walk ends with "{END}", where it is asked about')
        return [len(words) - 1]

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of moves of each example."""
        assert batch.valid is not None
        return {"length": batch.valid.sum(dim=1) - 1}
