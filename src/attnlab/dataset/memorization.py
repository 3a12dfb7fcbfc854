"""One map of keys to values for all examples, to be learnt by heart."""

from functools import cached_property

import numpy as np

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import ExampleArrays


@ranged
class Memorization(Task):
    """Recalls facts that stand in no example, but in the labels (MAD: Poli et al. 2024, sec. 3.1).

    Each key has a value of its own in all examples and splits, fixed by the data seed. The value is
    the label at the "?" after the key, and never read:

        k7 ? k3 ? k7 ?    at the first and the last "?": v90, at the second: v12

    Keys are the first half of the vocabulary without "?", drawn with replacement; values are the
    rest. MAD trains on 256 examples (memorization_mad), and its map does not follow its seed in
    every place; ours does. Chance is one of the values; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 256,
        length: Tokens = 32,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if vocab_size < 5:
            raise ValueError(f"vocab_size={vocab_size} must be at least 5: two keys, two values, ?")
        if length % 2 or length < 2:
            raise ValueError(f'length={length} must be even and at least 2: "?" after each key')
        self.num_keys = (vocab_size - 1) // 2
        self.num_values = vocab_size - 1 - self.num_keys
        self.max_length, self.chance = length, 1 / self.num_keys
        keys = [f"k{i}" for i in range(self.num_keys)]
        self.tokens = [*keys, *(f"v{i}" for i in range(self.num_values)), "?"]

    @cached_property
    def facts(self) -> np.ndarray:
        """The value of each key, as a token."""
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, 2**32]))
        return (generator.permutation(self.num_values)[: self.num_keys] + self.num_keys).astype(
            np.int32
        )

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        keys = generator.integers(self.num_keys, size=(n, self.max_length // 2), dtype=np.int32)
        inputs = np.full((n, self.max_length), len(self.tokens) - 1, dtype=np.int32)
        inputs[:, 0::2] = keys
        query_positions = np.tile(np.arange(1, self.max_length, 2, dtype=np.int32), (n, 1))
        return ExampleArrays(inputs, self.facts[keys], query_positions)
