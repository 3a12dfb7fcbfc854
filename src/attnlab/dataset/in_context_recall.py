"""A new map of keys to values in each example, to be picked up while it is read."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, FewCount, Seed, ShareBelowOne, Tokens, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays

NOISE = 16
"""Kinds of noise tokens: MAD has as many in all of its settings."""


@ranged
class InContextRecall(Task):
    """Recalls what a key came with earlier in the sequence (MAD: Poli et al. 2024, sec. 3.1).

    Keys and values, half of the vocabulary each, alternate; every example has a map of its own,
    drawn with replacement, and keys are drawn with replacement too. Where a key comes again, its
    value is the label at the key:

        k3 v5 k1 v0 k3 v5 k1    at the second k3: v5, at the last k1: v0

    With a `noise_share`, each pair but the last is with that chance two noise tokens instead, and
    `vocab_size` counts the 16 kinds of them; one pair at least is shown before the last key (in
    MAD's generator, with chance 1 / pairs, none need be). Noise is fresh in each example, drawn
    alike in all splits, and asked in none:

        k3 v5 n7 n2 k1 v0 k3 v5 n2 n2 k1    at the second k3: v5, at the last k1: v0

    The last key is one of those shown, and its value is a label alone: `length` counts it, and the
    model reads length - 1 tokens. What cannot be known, a key or the value of a new one, is asked
    in no split. With `compat`, training asks for every next token, noise too, as MAD's does (its
    test is ours, at the setting `multi_query` that all its experiments have).

    Chance is the mean share of the keys that have the commonest value: what naming it everywhere
    scores (.32 with 8 keys and 8 values). The best possible score is 1, but not on training data
    with `compat`.
    """

    def __init__(
        self,
        *,
        vocab_size: FewCount = 16,
        length: Tokens = 128,
        noise_share: ShareBelowOne = 0.0,
        compat: bool = False,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        num_noise_kinds = NOISE if noise_share else 0
        if vocab_size % 2 or vocab_size < num_noise_kinds + 4:
            reason = (
                f": {num_noise_kinds} kinds of noise, and two keys and two values or more"
                if num_noise_kinds
                else ""
            )
            raise ValueError(
                f"vocab_size={vocab_size} must be even and at least {num_noise_kinds + 4}{reason}"
            )
        if length % 2 or length < 4:
            raise ValueError(f"length={length} must be even and at least 4, two pairs")
        self.num_keys, self.max_length = (vocab_size - num_noise_kinds) // 2, length - 1
        self.noise_share, self.compat = noise_share, compat
        self.chance = commonest(self.num_keys)
        pairs = [f"{kind}{i}" for kind in "kv" for i in range(self.num_keys)]
        self.tokens = [*pairs, *(f"n{i}" for i in range(num_noise_kinds))]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        num_keys, pairs = self.num_keys, (self.max_length + 1) // 2
        values = generator.integers(num_keys, 2 * num_keys, size=(n, num_keys), dtype=np.int32)
        keys = generator.integers(num_keys, size=(n, pairs), dtype=np.int32)
        example, noisy = np.arange(n), np.zeros((n, pairs), dtype=bool)
        if self.noise_share:
            noisy = generator.random((n, pairs), dtype=np.float32) < self.noise_share
            noisy[example, generator.integers(pairs - 1, size=n)] = False
            noisy[:, -1] = False
        repeats_key = np.zeros((n, pairs), dtype=bool)
        key_occurred = np.zeros((n, num_keys), dtype=bool)
        for pair in range(pairs - 1):
            key, has_key = keys[:, pair], ~noisy[:, pair]
            repeats_key[:, pair] = key_occurred[example, key] & has_key
            key_occurred[example, key] |= has_key
        # Only keys that occurred have scores of at least 1, so the last key is one of them.
        key_scores = generator.random(key_occurred.shape, dtype=np.float32) + key_occurred
        keys[:, -1] = key_scores.argmax(axis=1)
        repeats_key[:, -1] = True
        sequence = np.empty((n, 2 * pairs), dtype=np.int32)
        sequence[:, 0::2], sequence[:, 1::2] = keys, np.take_along_axis(values, keys, axis=1)
        if self.noise_share:
            noise = generator.integers(NOISE, size=sequence.shape, dtype=np.int32) + 2 * num_keys
            sequence = np.where(np.repeat(noisy, 2, axis=1), noise, sequence)
        targets = sequence[:, 1:].copy()
        if not (self.compat and split == "train"):
            targets[:, 1::2] = IGNORE
            targets[:, 0::2][~repeats_key] = IGNORE
        return ExampleArrays(sequence[:, :-1].copy(), targets)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return how many tokens after its last value each key comes; 0 for new keys and values."""
        keys = batch.inputs[:, 0::2]
        distance = torch.zeros_like(batch.targets)
        last_value_positions = torch.zeros_like(keys[:, :1]).repeat(1, len(self.tokens))
        for pair in range(keys.shape[1]):
            key, position = keys[:, pair : pair + 1], 2 * pair
            value_position = last_value_positions.gather(1, key)
            has_value = (value_position > 0) & (key < self.num_keys)
            key_distance = torch.where(has_value, position - value_position, 0)
            distance[:, position : position + 1] = key_distance
            last_value_positions.scatter_(1, key, position + 1)
        return {"distance": distance}

    def show(self, split: str = "train", index: int = 0) -> str:
        """Return one example: the inputs, and the targets on the line under them."""
        batch = self.splits[split][index]
        input_words = [self.tokens[token] for token in batch.inputs[0].tolist()]
        target_words = [self.tokens[t] if t != IGNORE else "." for t in batch.targets[0].tolist()]
        width = max(map(len, self.tokens))
        lines = (
            " ".join(f"{word:<{width}}" for word in words).rstrip()
            for words in (input_words, target_words)
        )
        return "\n".join(lines)


def commonest(count: int) -> float:
    """Return the mean share of `count` keys that have the commonest of `count` values.

    The numbers of keys that each value has are Poisson variables of mean 1, given that they sum to
    `count`. So the probability that no value has more than `limit` keys is the density of the sum
    of `count` truncated variables at `count`, over that of the sum of full ones.
    """
    num_keys = np.arange(count + 1)
    density = np.exp(-1 - np.cumsum(np.log(num_keys.clip(min=1))))
    sum_density = np.exp(count * np.log(count) - count - np.log(num_keys[1:]).sum())
    # The mean of the largest number is the sum over limits of the probability to exceed them.
    mean, exceeds_limit, limit = 0.0, 1.0, 0
    while exceeds_limit > 1e-9 and limit < count:
        mean, limit = mean + exceeds_limit, limit + 1
        convolved = truncated = density * (num_keys <= limit)
        for _ in range(count - 1):
            convolved = np.convolve(convolved, truncated)[: count + 1]
        exceeds_limit = 1 - convolved[count] / sum_density
    return float(mean / count)
