"""Small models whose attention is sharp enough to matter, without training."""

from collections.abc import Callable
from functools import cache

import pytest

from attnlab.assemble import Experiment
from attnlab.config import Config
from tests.untrained import sharp

SMALL = ("dataset.num_train=100", "dataset.num_validation=60", "dataset.num_test=60")


@pytest.fixture(scope="session")
def once(composed: Callable[..., Config]) -> Callable[..., Config]:
    """Compose each config once for all tests of evidence, which change none."""
    return cache(composed)


@pytest.fixture
def experiment(once) -> Callable[..., Experiment]:
    """Make an untrained experiment on `pronoun`; its weights are thrice as large as they start."""

    def make(*overrides: str) -> Experiment:
        return sharp(once("dataset=pronoun", *SMALL, *overrides))

    return make
