"""The same facts from fewer examples."""

from tests.dataset.checks.memorization import answers

__all__ = ["answers"]
