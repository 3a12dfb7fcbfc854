"""The order in which a run sees its training data."""

from collections.abc import Callable, Iterator

import torch

from attnlab.split import Batch, Split

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: its multiples lie far apart."""


class Loader:
    """Endless training batches, each a pure function of (data, seed, number).

    Which examples a batch has is the split's word (`Split.choose`): a permutation for every epoch,
    unless it says otherwise. Only the number counts, so a resumed run starts at `first()`, and
    nothing is saved or skipped. Of `ranks` processes that train together, each takes its share of
    every batch, and all of them the whole of it.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        first: Callable[[], int] = lambda: 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch_size > len(split):
            raise ValueError(f"batch_size={batch_size} exceeds the {len(split)} training examples")
        if batch_size % ranks:
            raise ValueError(f"batch_size={batch_size} does not split among {ranks} processes")
        self.split, self.batch_size, self.seed, self.first = split, batch_size, seed, first
        self.rank, self.ranks = rank, ranks

    def __iter__(self) -> Iterator[Batch]:
        number = self.first()
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> Batch:
        """Fetch the batch of this number, counted from 0."""
        chosen = self.split.choose(self.seed, number, self.batch_size)
        # Beyond every number of an example, which are the keys of evaluation, and far from the keys
        # of other seeds.
        first = 2**62 + (self.seed * GOLDEN + number * self.batch_size) % 2**62
        rows = torch.arange(self.rank, self.batch_size, self.ranks)
        return self.split.batch(chosen[self.rank :: self.ranks])._replace(key=first + rows)
