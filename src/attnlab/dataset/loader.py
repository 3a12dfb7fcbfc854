"""The order in which a run sees its training data."""

import copy
from collections.abc import Iterator

import torch

from attnlab.split import Batch, Split

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: its multiples lie far apart."""


class Loader:
    """Endless training batches, each a pure function of (data, seed, number).

    `Split.batch_indices` selects the examples of a batch: a permutation for every epoch, unless the
    split overrides it. A batch depends on its number alone, so a resumed run starts at batch
    `first`, and nothing is saved or skipped. `ranks` processes that train together divide every
    batch equally.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        first: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch_size > len(split):
            raise ValueError(f"batch_size={batch_size} exceeds the {len(split)} training examples")
        if batch_size % ranks:
            raise ValueError(f"batch_size={batch_size} does not split among {ranks} processes")
        self.split, self.batch_size, self.seed, self.first = split, batch_size, seed, first
        self.rank, self.ranks = rank, ranks

    def starting_at(self, first: int) -> "Loader":
        """Return the same batches from a number on."""
        loader = copy.copy(self)
        loader.first = first
        return loader

    def __iter__(self) -> Iterator[Batch]:
        number = self.first
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> Batch:
        """Return this process's share of the batch of a number, counted from 0."""
        indices = self.split.batch_indices(self.seed, number, self.batch_size)
        # Noise keys are larger than every example's index, which is its key in evaluation, and far
        # from the keys of other seeds.
        first_key = 2**62 + (self.seed * GOLDEN + number * self.batch_size) % 2**62
        rows = torch.arange(self.rank, self.batch_size, self.ranks)
        return self.split.batch(indices[self.rank :: self.ranks])._replace(
            noise_key=first_key + rows
        )
