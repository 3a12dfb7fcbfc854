"""Noise begins with an n, and is passed over."""

from tests.dataset.checks.in_context_recall import answers

__all__ = ["answers"]
