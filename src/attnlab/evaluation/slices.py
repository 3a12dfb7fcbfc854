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
        self._arrays: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

    def add(
        self,
        keys_by_slicing: Mapping[str, Int[Tensor, "batch ..."]],
        metric: str,
        values: Float[Tensor, "batch ..."],
        counted: Bool[Tensor, "batch ..."],
    ) -> None:
        """Add the values of a batch that count (one for each label, or for each sequence)."""
        for slicing, keys in keys_by_slicing.items():
            if keys.ndim > values.ndim:
                continue
            keys = keys.reshape(*keys.shape, *[1] * (values.ndim - keys.ndim))
            counted_keys, counted_values = keys.expand_as(values)[counted], values[counted]
            batch_arrays = (counted_keys.numpy(), counted_values.double().numpy())
            self._arrays[metric, slicing].append(batch_arrays)

    def mean_by_slice(self) -> dict[str, float]:
        """Return the mean of each slice by its name, as in `accuracy@distance=8-15`."""
        mean_by_name = {}
        for (metric, slicing), arrays_by_batch in self._arrays.items():
            keys, values = map(np.concatenate, zip(*arrays_by_batch, strict=True))
            is_binned = len(np.unique(keys)) > MOST
            slice_starts = (1 << np.frexp(keys)[1] >> 1) if is_binned else keys
            for slice_start in np.unique(slice_starts):
                spans_range = is_binned and slice_start > 1
                slice_label = (
                    f"{slice_start}-{2 * slice_start - 1}" if spans_range else f"{slice_start}"
                )
                slice_mean = values[slice_starts == slice_start].mean()
                mean_by_name[f"{metric}@{slicing}={slice_label}"] = float(slice_mean)
        return mean_by_name
