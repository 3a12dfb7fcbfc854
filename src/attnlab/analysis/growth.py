"""How the cost of a sequence grows with its length: as which power of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import NamedTuple

from attnlab.measure import Cell


class Exponent(NamedTuple):
    """The power of the length that something grows with, and its standard error."""

    value: float
    error: float | None
    """None for two lengths, which any power fits."""


@dataclass(frozen=True)
class Growth:
    """With which power of the length each cost of one sequence grows.

    None for a single length, and where an arm takes none of it.
    """

    time: Exponent | None
    memory: Exponent | None
    flops: Exponent | None


def growth(cells: Sequence[Cell]) -> Growth:
    """Fit time, peak memory and FLOPs of one sequence, over the cells of one arm and mode."""
    done = [cell for cell in cells if cell.seconds]
    lengths = [cell.length for cell in done]

    def fitted(costs: Sequence[float]) -> Exponent | None:
        # What an arm does not take at all has no power.
        return fit(lengths, costs) if all(costs) else None

    return Growth(
        time=fitted([median(cell.seconds) / cell.batch for cell in done]),
        memory=fitted([(cell.peak or 0) / cell.batch for cell in done]),
        flops=fitted([(cell.flops or 0) / cell.batch for cell in done]),
    )


def fit(lengths: Sequence[int], values: Sequence[float]) -> Exponent | None:
    """Fit a power of the length by least squares of the logarithms; None for fewer than two."""
    if len(lengths) < 2:
        return None
    x, y = ([math.log(number) for number in numbers] for numbers in (lengths, values))
    slope, intercept = linear_regression(x, y)
    if len(x) == 2:
        return Exponent(slope, None)
    middle = sum(x) / len(x)
    missed = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - middle) ** 2 for a in x)
    return Exponent(slope, math.sqrt(missed / (len(x) - 2) / spread))
