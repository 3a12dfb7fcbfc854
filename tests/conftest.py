"""What the tests share: configs composed as the program composes them."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from attnlab.config import Config, compose, conf_dir, search_path
from attnlab.trained import Trained
from tests.untrained import offered

# The tests themselves run in parallel; more threads than cores would wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def composed() -> Iterator[Callable[..., Config]]:
    """Compose a checked config from overrides."""
    with search_path() as trusted:
        yield lambda *overrides: compose(overrides, trusted)


@pytest.fixture(scope="module")
def once(composed: Callable[..., Config]) -> Callable[..., Config]:
    """Compose each config once."""
    return cache(composed)


@pytest.fixture
def offer(once: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Give a function that makes an untrained run, and lets the commands find it."""
    return offered(once, monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's tokenised corpora out of the tests, and theirs out of the user's."""
    os.environ["ATTNLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def choices(group: str) -> Sequence[str]:
    """List what conf/ offers in a group, so that a new YAML is tested from birth."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def marked(name: str, fast: Collection[str]) -> Any:
    """Give a parameter that is slow unless it is one of the fast ones."""
    return name if name in fast else pytest.param(name, marks=pytest.mark.slow)


ATTENDING = "lstm_attention"
"""The variant whose attention needs an encoder, or a stack that sees all."""


def causal_variants() -> Sequence[str]:
    """List the variants that can predict the next token."""
    return [name for name in choices("variant") if name != ATTENDING]


def dataset_words(name: str) -> list[str]:
    """Choose a dataset; one that reads files gets small ones that are always there."""
    root = Path(__file__).parents[1]
    reads = composed_keys(name) & {"path", "obtain"}
    small = root / "tests/corpus/small" / name
    given = [f"dataset.path={small if small.is_dir() else root / 'LICENSE'}", "dataset.sha256=null"]
    return [f"dataset={name}", *(given if reads else [])]


@cache
def composed_keys(name: str) -> frozenset[str]:
    """List the knobs of a dataset, those included that its YAML inherits."""
    text = Path(conf_dir(), f"dataset/{name}.yaml").read_text()
    content = yaml.safe_load(text)
    above = [d for d in content.get("defaults", []) if isinstance(d, str) and d != "_self_"]
    return frozenset(content.get("dataset", {})).union(*map(composed_keys, above))
