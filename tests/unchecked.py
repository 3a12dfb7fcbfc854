"""Calls whose arguments have types that nobody annotated, as a notebook's user writes them."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import config


@contextmanager
def unchecked_types() -> Iterator[None]:
    """Let the code itself refuse wrong types in this block; the tests' checks stay out of it."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
