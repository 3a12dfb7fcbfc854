"""Configs that commands are tried with, each composed once; commands change none of them."""

from collections.abc import Callable
from functools import cache

import pytest

from attnlab.config import Config


@pytest.fixture(scope="session")
def once(composed: Callable[..., Config]) -> Callable[..., Config]:
    """Compose each config once for all commands."""
    return cache(composed)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("ATTNLAB_RUNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
