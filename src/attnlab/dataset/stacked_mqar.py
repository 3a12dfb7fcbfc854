"""Associative recall where key and value share a position."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, FewCount, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays


@ranged
class StackedMQAR(Task):
    """Recalls the value of a key that stood in one position with it (zoology's continuous MQAR).

    In MQAR (Arora et al. 2023) a value follows its key, and a layer must first bring the two
    together. Here one token is the whole pair, and another the key alone:

        k3=v7 k0=v2 k5=v5 k5? k3? k0?    at k5?: v5, at k3?: v7, at k0?: v2

    Pairs are shown `num_passes` times, each time in a new order (Arora et al. 2024, "Just read
    twice"), then every key is asked once. Keys and values are drawn without replacement. zoology
    sets two vectors side by side in a position; a token for each pair needs
    num_keys x num_values + num_keys + num_values tokens instead, and an ordinary embedding.

    Chance is 1 / num_pairs for a model that knows the values but not which; the best possible score
    is 1.
    """

    def __init__(
        self,
        *,
        num_keys: Tokens = 16,
        num_values: Tokens = 16,
        num_pairs: Tokens = 8,
        num_passes: FewCount = 1,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if num_pairs > min(num_keys, num_values):
            raise ValueError(
                f"num_pairs={num_pairs} must lie in 1..{min(num_keys, num_values)}: each pair has "
                f"its own of num_keys={num_keys} keys and num_values={num_values} values"
            )
        self.num_keys, self.num_values = num_keys, num_values
        self.num_pairs, self.num_passes = num_pairs, num_passes
        self.max_length, self.chance = (num_passes + 1) * num_pairs, 1 / num_pairs
        keys = [f"k{key}" for key in range(num_keys)]
        values = [f"v{value}" for value in range(num_values)]
        pairs = [f"{key}={value}" for key in keys for value in values]
        self.tokens = [*pairs, *(f"{key}?" for key in keys), *values]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        keys, values = (
            generator.random((n, count), dtype=np.float32).argsort(axis=1)[:, : self.num_pairs]
            for count in (self.num_keys, self.num_values)
        )
        order = np.tile(np.arange(self.num_pairs), (n, self.num_passes + 1, 1))
        order = generator.permuted(order, axis=2).reshape(n, self.max_length)
        keys, values = (np.take_along_axis(drawn, order, axis=1) for drawn in (keys, values))
        first_query = self.num_passes * self.num_pairs
        first_query_id = self.num_keys * self.num_values
        inputs = (keys * self.num_values + values).astype(np.int32)
        inputs[:, first_query:] = first_query_id + keys[:, first_query:]
        first_value_id = first_query_id + self.num_keys
        targets = (first_value_id + values[:, first_query:]).astype(np.int32)
        query_positions = np.arange(first_query, self.max_length, dtype=np.int32)
        return ExampleArrays(inputs, targets, np.tile(query_positions, (n, 1)))

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of pairs, and how many tokens after its last pair each query comes."""
        assert batch.at is not None
        pair_keys = batch.inputs[:, : self.num_passes * self.num_pairs] // self.num_values
        query_keys = batch.inputs.gather(1, batch.at) - self.num_keys * self.num_values
        is_same_key = query_keys[:, :, None] == pair_keys[:, None]
        last_position = (is_same_key * torch.arange(pair_keys.shape[1])).amax(dim=-1)
        pairs = torch.full(batch.at.shape[:1], self.num_pairs)
        return {"num_pairs": pairs, "distance": batch.at - last_position}
