"""How deep the tests look: how many examples hypothesis draws, and which share of the soak runs."""

import os
import subprocess
import zlib
from functools import cache
from pathlib import Path

from hypothesis import settings

SOAK = float(os.environ.get("ATTNLAB_SOAK", "0"))
"""The share of the soak that runs; 0 in every other run of the tests."""
DEPTH = max(1, round(20 * SOAK))
"""How many times more examples are drawn than in the fast tests."""


def examples(count: int, **options: object) -> settings:
    """Return settings that draw so many examples, always the same ones but in a whole soak."""
    return settings(
        max_examples=count * DEPTH,
        derandomize=SOAK < 1,
        deadline=None,
        **options,  # pyright: ignore[reportArgumentType]
    )


def in_share(test: str) -> bool:
    """Return whether a test of the soak belongs to the share; each commit has its own."""
    return zlib.crc32(f"{_commit()} {test}".encode()) / 2**32 < SOAK


@cache
def _commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()
