"""Metrics by what distinguishes the examples of a split: a length, a distance, a count."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOST = 12
"""More different values than this are put into bins, each twice as wide as the one before."""


class Slices:
    """Collects the values of metrics with the slice of each, and gives the mean of every slice."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

    def add(
        self,
        slices: Mapping[str, Int[Tensor, "batch ..."]],
        metric: str,
        values: Float[Tensor, "batch ..."],
        counted: Bool[Tensor, "batch ..."],
    ) -> None:
        """Keep what counts of the values (one for each label, or for each sequence)."""
        for name, where in slices.items():
            if where.ndim > values.ndim:
                continue
            where = where.reshape(*where.shape, *[1] * (values.ndim - where.ndim))
            chosen = where.expand_as(values)[counted], values[counted]
            self._found[metric, name].append((chosen[0].numpy(), chosen[1].double().numpy()))

    def means(self) -> dict[str, float]:
        """Name and average the slices: `accuracy@distance=8-15`."""
        means = {}
        for (metric, name), parts in self._found.items():
            where, values = (np.concatenate(part) for part in zip(*parts, strict=True))
            binned = len(np.unique(where)) > MOST
            keys = (1 << np.frexp(where)[1] >> 1) if binned else where
            for key in np.unique(keys):
                said = f"{key}-{2 * key - 1}" if binned and key > 1 else f"{key}"
                means[f"{metric}@{name}={said}"] = float(values[keys == key].mean())
        return means
