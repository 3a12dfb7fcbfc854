"""Products with zeros that fill a shape: work of the machine that no count of a model's cost holds.

Code that fills a shape up before it multiplies says how much of the products that follow is for
nothing, so that a cost is that of the formula, whatever the shapes in which it is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Filling:
    """How many FLOPs a pass spent on zeros."""

    def __init__(self) -> None:
        self.flops = 0


_heard: Filling | None = None


@contextmanager
def counted() -> Iterator[Filling]:
    """Count the FLOPs that are spent on zeros while this lasts."""
    global _heard
    outer, _heard = _heard, Filling()
    try:
        yield _heard
    finally:
        _heard = outer


def spend(flops: int) -> None:
    """Say that so many of the FLOPs that follow are spent on zeros."""
    if _heard is not None:
        _heard.flops += flops
