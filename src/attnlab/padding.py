"""FLOPs that are spent on padding, which the counted cost of a model leaves out.

Code that pads before it multiplies reports how many FLOPs of the products that follow are on zeros.
So a counted cost is that of the formula, whatever the shapes in which it is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Padding:
    """The number of FLOPs that were spent on padding."""

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
    """Add FLOPs of the products that follow, which are spent on padding, to the open count."""
    if _counting is not None:
        _counting.flops += flops
