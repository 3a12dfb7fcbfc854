"""What the tests share: configs composed as the program composes them."""

import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

import tests.type_checked  # noqa: F401

# isort: split
from attnlab.config import Config, compose, search_path
from attnlab.experiment import Experiment
from attnlab.loaded_run import LoadedRun
from tests.depth import in_share
from tests.untrained import offered, sharp

SMALL = ("dataset.num_train=100", "dataset.num_validation=60", "dataset.num_test=60")
"""Knobs of a dataset that is small."""

# The tests themselves run in parallel; more threads than cores would wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the soak out, but for the share that is asked for (`make soak`)."""
    outside = [i for i in items if i.get_closest_marker("soak") and not in_share(i.nodeid)]
    config.hook.pytest_deselected(items=outside)
    items[:] = [item for item in items if item not in outside]


@pytest.fixture(scope="session")
def composed() -> Iterator[Callable[..., Config]]:
    """Compose a checked config from overrides."""
    with search_path() as own:
        yield lambda *overrides: compose(overrides, own)


@pytest.fixture(scope="session")
def once(composed: Callable[..., Config]) -> Callable[..., Config]:
    """Compose each config once for all tests, which change none."""
    return cache(composed)


@pytest.fixture
def experiment(once: Callable[..., Config]) -> Callable[..., Experiment]:
    """Make an untrained experiment on `pronoun`; its weights are thrice as large as they start."""

    def make(*overrides: str) -> Experiment:
        return sharp(once("dataset=pronoun", *SMALL, *overrides))

    return make


@pytest.fixture
def offer(once: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedRun]:
    """Give a function that makes an untrained run, and lets the commands find it."""
    return offered(once, monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's tokenised corpora out of the tests, and theirs out of the user's."""
    os.environ["ATTNLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the width of the terminal that the tests are run in out of what they print."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
