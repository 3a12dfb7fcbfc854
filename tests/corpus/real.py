"""Where the real corpora lie that some tests read, if they are here."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("ATTNLAB_DATA", Path(__file__).parents[3] / "shared/data"))
SMALL = Path(__file__).parent / "small"
"""Made-up data in the layouts of the published ones, a directory for each dataset."""


def real(name: str) -> Path:
    """Give the place of real data, or skip the test."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine; ATTNLAB_DATA names the directory of real data")
    return path
