"""FLOPs that are spent on padding: work of the machine that no count of a model's cost holds.

Code that pads before it multiplies says how many FLOPs of the products that follow are on zeros. So
a cost is that of the formula, whatever the shapes in which it is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Padding:
    """How many FLOPs were spent on padding."""

    def __init__(self) -> None:
        self.flops = 0


_counting: Padding | None = None


@contextmanager
def count_padding() -> Iterator[Padding]:
    """Count the FLOPs that are spent on padding inside this context."""
    global _counting
    outer, _counting = _counting, Padding()
    try:
        yield _counting
    finally:
        _counting = outer


def add_padding(flops: int) -> None:
    """Say that so many FLOPs of the products that follow are spent on padding."""
    if _counting is not None:
        _counting.flops += flops
