"""Random rows that several tasks draw, many at once."""

import numpy as np

POWER = 0.01
"""The a of Arora et al. (2023): most questions follow soon, some late."""


def distinct(generator: np.random.Generator, n: int, count: int, low: int, high: int) -> np.ndarray:
    """Draw n rows of `count` different integers from low to high-1, in random order."""
    if count * count > 4 * (high - low):
        # Rows without a repeat are rare here, so order all the numbers at random.
        race = generator.random((n, high - low), dtype=np.float32)
        return (race.argsort(axis=1)[:, :count] + low).astype(np.int32)
    rows = generator.integers(low, high, size=(n, count), dtype=np.int32)
    again = np.arange(n)
    while len(again):
        ordered = np.sort(rows[again], axis=1)
        again = again[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        rows[again] = generator.integers(low, high, size=(len(again), count), dtype=np.int32)
    return rows


def slots(generator: np.random.Generator, n: int, count: int, space: int) -> np.ndarray:
    """Draw n rows of `count` places below `space`, without replacement, with weight (i+1)^(a-1).

    Exponential variables over their weights, in order, are such a draw (Efraimidis & Spirakis
    2006). A positive float sorts like its bits, so its last bits can carry the place along, and one
    fast sort gives the order of places.
    """
    weights = np.arange(1, space + 1, dtype=np.float64) ** (POWER - 1)
    race = generator.standard_exponential((n, space), dtype=np.float32)
    race /= weights.astype(np.float32)
    bits = np.uint32((1 << (space - 1).bit_length()) - 1)
    packed = (race.view(np.uint32) & ~bits) | np.arange(space, dtype=np.uint32)
    packed.sort(axis=1)
    return (packed[:, :count] & bits).astype(np.int32)
