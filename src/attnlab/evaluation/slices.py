"""Metrics by a property of the examples of a split: a length, a distance, a count."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOST = 12
"""The most distinct values with a slice each; more are put into bins of doubling width."""


class Slices:
    """Collects the values of metrics with their slices, and returns the mean of each slice."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

    def add(
        self,
        slices: Mapping[str, Int[Tensor, "batch ..."]],
        metric: str,
        values: Float[Tensor, "batch ..."],
        counted: Bool[Tensor, "batch ..."],
    ) -> None:
        """Add the counted values (one for each label, or for each sequence)."""
        for slicing, keys in slices.items():
            if keys.ndim > values.ndim:
                continue
            keys = keys.reshape(*keys.shape, *[1] * (values.ndim - keys.ndim))
            counted_keys, counted_values = keys.expand_as(values)[counted], values[counted]
            part = (counted_keys.numpy(), counted_values.double().numpy())
            self._parts[metric, slicing].append(part)

    def means(self) -> dict[str, float]:
        """Return the mean of each slice by its name, as in `accuracy@distance=8-15`."""
        means = {}
        for (metric, slicing), parts in self._parts.items():
            keys, values = (np.concatenate(part) for part in zip(*parts, strict=True))
            is_binned = len(np.unique(keys)) > MOST
            bins = (1 << np.frexp(keys)[1] >> 1) if is_binned else keys
            for bin_start in np.unique(bins):
                is_range = is_binned and bin_start > 1
                bin_label = f"{bin_start}-{2 * bin_start - 1}" if is_range else f"{bin_start}"
                means[f"{metric}@{slicing}={bin_label}"] = float(values[bins == bin_start].mean())
        return means
