"""Associative recall where keys get new values."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.draw import draw_distinct_rows, draw_slots
from attnlab.ranges import Count, CountOrZero, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays


@ranged
class ForgettingMQAR(Task):
    """Recalls the last value of each key, where some had another before (zoology's variant).

    MQAR (Arora et al. 2023, sec. 3.2) whose pairs are followed by `num_updates` more: keys from
    among them, drawn without replacement, each with a new value. Then every key is asked once,
    i = 1, 2, ... places of two tokens later with weight i^(a-1), a = .01, and the label at the key
    is what it was given last:

        k1 v1 k2 v2 k1 v3 k2 _ k1 _ ...    at the last k2: v2, at the last k1: v3

    Keys are the tokens 1 to V/2-1, values V/2 to V-1, and what is neither is 0. All values of an
    example differ. In zoology's generator a new value is held apart from that of the pair that
    happens to have the update's own number, so it may equal the old one or another key's. Its
    random filler is left out: a copy of a key in it would be one more question without a label.

    Chance is 1 / num_pairs for a model that knows the last values but not which; recalling first
    values scores 1 - num_updates / num_pairs; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 256,
        length: Tokens = 64,
        num_pairs: Tokens = 8,
        num_updates: CountOrZero = 4,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if vocab_size % 2 or length % 2:
            raise ValueError(f"vocab_size={vocab_size} and length={length} must be even")
        if num_updates > num_pairs:
            raise ValueError(f"num_updates={num_updates} must lie in 0..num_pairs={num_pairs}")
        if (needed := 4 * num_pairs + 2 * num_updates) > length:
            raise ValueError(
                f"num_pairs={num_pairs} and num_updates={num_updates} take {needed} positions, two "
                f"for each pair, update and question, but length={length}"
            )
        half = vocab_size // 2
        if num_pairs > half - 1 or num_pairs + num_updates > half:
            raise ValueError(
                f"num_pairs={num_pairs} with num_updates={num_updates} needs {num_pairs} keys and "
                f"{num_pairs + num_updates} values, but vocab_size={vocab_size} has "
                f"{max(half - 1, 0)} keys and {half} values"
            )
        self.vocab_size, self.max_length, self.num_pairs = vocab_size, length, num_pairs
        self.num_updates, self.chance = num_updates, 1 / num_pairs
        keys, values = range(1, half), range(half, vocab_size)
        self.tokens = ["_", *(f"k{i}" for i in keys), *(f"v{i}" for i in values)]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        half, pairs = self.vocab_size // 2, self.num_pairs
        num_statements = pairs + self.num_updates
        keys = draw_distinct_rows(generator, n, pairs, 1, half)
        stated_values = draw_distinct_rows(generator, n, num_statements, half, self.vocab_size)
        order = generator.permuted(np.tile(np.arange(pairs), (n, 1)), axis=1)
        updated = order[:, : self.num_updates]
        query_slots = draw_slots(generator, n, pairs, self.max_length // 2 - num_statements)
        query_positions = 2 * num_statements + 2 * query_slots
        inputs = np.zeros((n, self.max_length), dtype=np.int32)
        inputs[:, 0 : 2 * pairs : 2] = keys
        inputs[:, 1 : 2 * num_statements : 2] = stated_values
        inputs[:, 2 * pairs : 2 * num_statements : 2] = np.take_along_axis(keys, updated, axis=1)
        np.put_along_axis(inputs, query_positions, keys, axis=1)
        values = stated_values[:, :pairs].copy()
        np.put_along_axis(values, updated, stated_values[:, pairs:], axis=1)
        return ExampleArrays(inputs, values, query_positions)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of pairs, whether each query's key got a new value, and its distance.

        The distance is how many tokens after the key's last value the query comes.
        """
        assert batch.at is not None
        stated_keys = batch.inputs[:, : 2 * (self.num_pairs + self.num_updates) : 2]
        is_same_key = batch.inputs.gather(1, batch.at)[:, :, None] == stated_keys[:, None]
        value_positions = torch.arange(1, 2 * stated_keys.shape[1], 2)
        return {
            "num_pairs": torch.full(batch.at.shape[:1], self.num_pairs),
            "updated": is_same_key.sum(dim=-1) - 1,
            "distance": batch.at - (is_same_key * value_positions).amax(dim=-1),
        }
