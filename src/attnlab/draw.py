"""Random draws that several tasks share, for many rows at once."""

import numpy as np

POWER = 0.01
"""The exponent a of Arora et al. (2023): most queries follow soon, some late."""


def draw_distinct_rows(
    generator: np.random.Generator, n: int, count: int, low: int, high: int
) -> np.ndarray:
    """Draw n rows of `count` different integers from low to high-1, in random order."""
    if count * count > 4 * (high - low):
        # Rows without a repeat are rare here, so order all the numbers at random.
        sort_keys = generator.random((n, high - low), dtype=np.float32)
        return (sort_keys.argsort(axis=1)[:, :count] + low).astype(np.int32)
    # Rows with a repeat are drawn again as a whole, so that all rows without one are equally
    # likely. Above the bound on count, most rows would be drawn many times.
    rows = generator.integers(low, high, size=(n, count), dtype=np.int32)
    unchecked_indices = np.arange(n)
    while len(unchecked_indices):
        sorted_rows = np.sort(rows[unchecked_indices], axis=1)
        repeating_indices = unchecked_indices[
            (sorted_rows[:, 1:] == sorted_rows[:, :-1]).any(axis=1)
        ]
        new_rows = generator.integers(
            low, high, size=(len(repeating_indices), count), dtype=np.int32
        )
        rows[repeating_indices] = new_rows
        unchecked_indices = repeating_indices
    return rows


def draw_slots(generator: np.random.Generator, n: int, count: int, space: int) -> np.ndarray:
    """Draw n rows of `count` slots i < `space`, without replacement, with weight (i+1)^(a-1).

    The order of exponential variables, each divided by its slot's weight, is such a draw
    (Efraimidis & Spirakis 2006). A positive float sorts like its bits, so the last bits of each
    variable can hold its slot, and one fast sort returns the slots in order.
    """
    weights = np.arange(1, space + 1, dtype=np.float64) ** (POWER - 1)
    arrival_times = generator.standard_exponential((n, space), dtype=np.float32)
    arrival_times /= weights.astype(np.float32)
    # The last bits of each time give way to the number of its slot. With fewer bits two slots would
    # have one number; with more, the order of the times would be less exact.
    slot_mask = np.uint32((1 << (space - 1).bit_length()) - 1)
    times_with_slots = (arrival_times.view(np.uint32) & ~slot_mask) | np.arange(
        space, dtype=np.uint32
    )
    times_with_slots.sort(axis=1)
    return (times_with_slots[:, :count] & slot_mask).astype(np.int32)
