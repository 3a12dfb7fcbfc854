"""Associative recall by keys of two tokens."""

from math import isqrt

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.draw import draw_distinct_rows, draw_slots
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays


@ranged
class CompositionalMQAR(Task):
    """Recalls the value of two keys together, neither of which tells it alone (zoology's variant).

    MQAR (Arora et al. 2023, sec. 3.2) with compound keys. Triples come first, one for each cell of
    a grid of sqrt(num_pairs) first and as many second keys, in random order; then each cell is
    asked once, i = 1, 2, ... places of three tokens after them with weight i^(a-1), a = .01. The
    value is the label at the second key:

        x1 y1 v1 x1 y2 v2 x2 y2 v3 x2 y1 v4 _ _ _ x2 y2 _ ...    at y2: v3

    The vocabulary stands in thirds: first keys x from 1, second keys y, values v; what is neither
    is 0. `random_filler` puts random tokens in place of 0, as zoology does by default; its own come
    from a random state that its seed does not set, ours from the example's stream.

    Chance is 1 / num_pairs for a model that knows the values but not which, and 1 / sqrt(num_pairs)
    with one of the two keys; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 256,
        length: Tokens = 64,
        num_pairs: Tokens = 4,
        random_filler: bool = False,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        self.side = isqrt(num_pairs)
        if self.side**2 != num_pairs:
            raise ValueError(f"num_pairs={num_pairs} must be a square: 1, 4, 9, 16, ...")
        if 6 * num_pairs > length:
            raise ValueError(
                f"num_pairs={num_pairs} takes {6 * num_pairs} positions, three times for the "
                f"triples and three times for the questions, but length={length}"
            )
        third = vocab_size // 3
        if third - 1 < self.side or vocab_size - 2 * third < num_pairs:
            raise ValueError(
                f"num_pairs={num_pairs} needs {self.side} first and second keys and {num_pairs} "
                f"values, but vocab_size={vocab_size} has {max(third - 1, 0)} first keys, {third} "
                f"second keys and {vocab_size - 2 * third} values"
            )
        self.vocab_size, self.max_length, self.num_pairs = vocab_size, length, num_pairs
        self.random_filler, self.chance, self.third = random_filler, 1 / num_pairs, third
        firsts, seconds = range(1, third), range(third, 2 * third)
        values = range(2 * third, vocab_size)
        ids_by_kind = {"x": firsts, "y": seconds, "v": values}
        self.tokens = ["_", *(f"{letter}{i}" for letter, ids in ids_by_kind.items() for i in ids)]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        third, pairs = self.third, self.num_pairs
        first = draw_distinct_rows(generator, n, self.side, 1, third)
        second = draw_distinct_rows(generator, n, self.side, third, 2 * third)
        values = draw_distinct_rows(generator, n, pairs, 2 * third, self.vocab_size)
        cells = generator.permuted(np.tile(np.arange(pairs), (n, 1)), axis=1)
        first = np.take_along_axis(first, cells // self.side, axis=1)
        second = np.take_along_axis(second, cells % self.side, axis=1)
        query_slots = draw_slots(generator, n, pairs, (self.max_length - 3 * pairs) // 3)
        query_positions = 3 * pairs + 3 * query_slots
        inputs = np.zeros((n, self.max_length), dtype=np.int32)
        for offset, triple_tokens in enumerate((first, second, values)):
            inputs[:, offset : 3 * pairs : 3] = triple_tokens
        np.put_along_axis(inputs, query_positions, first, axis=1)
        np.put_along_axis(inputs, query_positions + 1, second, axis=1)
        if self.random_filler:
            filler = generator.integers(self.vocab_size, size=inputs.shape, dtype=np.int32)
            inputs = np.where(inputs == 0, filler, inputs)
        return ExampleArrays(inputs, values, query_positions + 1)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of pairs, and how many tokens after its value each query comes."""
        assert batch.at is not None
        pairs = torch.full(batch.at.shape[:1], self.num_pairs)
        value_positions = torch.arange(2, 3 * self.num_pairs, 3)
        return {"num_pairs": pairs, "distance": batch.at - value_positions}
