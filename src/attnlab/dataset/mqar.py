"""Multi-query associative recall."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.draw import draw_distinct_rows, draw_slots
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays


@ranged
class MQAR(Task):
    """Recalls the value of each key that is asked again (Arora et al. 2023, sec. 3.2).

    Pairs `k1 v1 k2 v2 ...` come first. Then every key is asked once, i = 1, 2, ... places after
    them with weight i^(a-1), a = .01; its value is the label at the key's own position. Keys are
    the tokens 1 to V/2-1, values V/2 to V-1, and what is neither is 0.

    `random_filler` puts random tokens in place of 0, as zoology's generator does by default: some
    of them are then keys that nobody asks for. Chance is 1 / num_pairs for a model that knows the
    values but not which; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 256,
        length: Tokens = 64,
        num_pairs: Tokens = 8,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        random_filler: bool = False,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if vocab_size % 2 or length % 2:
            raise ValueError(f"vocab_size={vocab_size} and length={length} must be even")
        if 4 * num_pairs > length:
            raise ValueError(
                f"num_pairs={num_pairs} takes {4 * num_pairs} positions, twice for the pairs and "
                f"twice for the questions, but length={length}"
            )
        if num_pairs > vocab_size // 2 - 1:
            raise ValueError(
                f"num_pairs={num_pairs} needs as many keys, but vocab_size={vocab_size} has "
                f"{vocab_size // 2 - 1}"
            )
        self.vocab_size, self.max_length, self.num_pairs = vocab_size, length, num_pairs
        self.random_filler, self.chance = random_filler, 1 / num_pairs
        half = vocab_size // 2
        keys, values = range(1, half), range(half, vocab_size)
        self.tokens = ["_", *(f"k{i}" for i in keys), *(f"v{i}" for i in values)]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        half, pairs = self.vocab_size // 2, self.num_pairs
        keys = draw_distinct_rows(generator, n, pairs, 1, half)
        values = draw_distinct_rows(generator, n, pairs, half, self.vocab_size)
        query_slots = draw_slots(generator, n, pairs, (self.max_length - 2 * pairs) // 2)
        query_positions = 2 * pairs + 2 * query_slots
        inputs = np.zeros((n, self.max_length), dtype=np.int32)
        inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
        np.put_along_axis(inputs, query_positions, keys, axis=1)
        if self.random_filler:
            filler = generator.integers(self.vocab_size, size=inputs.shape, dtype=np.int32)
            inputs = np.where(inputs == 0, filler, inputs)
        return ExampleArrays(inputs, values, query_positions)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of pairs, and how many tokens after its value each query comes."""
        assert batch.at is not None
        pairs = torch.full(batch.at.shape[:1], self.num_pairs)
        value_positions = torch.arange(1, 2 * self.num_pairs, 2)
        return {"num_pairs": pairs, "distance": batch.at - value_positions}
