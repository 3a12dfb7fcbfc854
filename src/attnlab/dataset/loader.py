"""The order in which a run sees its training data."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from attnlab.dataset.base import Batch, Split


class Loader:
    """Endless training batches, each a pure function of (data, seed, number).

    Every epoch is a permutation of the split; a last batch that would be short is left out. Only
    the number counts, so a resumed run starts at `first()`, and nothing is saved or skipped.
    """

    def __init__(
        self, split: Split, batch_size: int, seed: int, first: Callable[[], int] = lambda: 0
    ) -> None:
        if batch_size > len(split):
            raise ValueError(f"batch_size={batch_size} exceeds the {len(split)} training examples")
        self.split, self.batch_size, self.seed, self.first = split, batch_size, seed, first
        self.per_epoch = len(split) // batch_size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        number = self.first()
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> Batch:
        """Fetch the batch of this number, counted from 0."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            draw = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, epoch, 0]))
            self._epoch, self._order = epoch, draw.permutation(len(self.split))
        start = place * self.batch_size
        batch = self.split.batch(self._order[start : start + self.batch_size])
        rows = torch.arange(self.batch_size)
        # Beyond every number of an example, which are the keys of evaluation.
        first = ((self.seed + 1) * 2**44 + number * self.batch_size) % 2**62
        return batch._replace(key=first + rows)
