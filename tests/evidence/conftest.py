"""Small models whose attention is sharp enough to matter, without training."""

from collections.abc import Callable

import pytest

from attnlab.assemble import Experiment
from tests.untrained import sharp

SMALL = ("dataset.num_train=100", "dataset.num_validation=60", "dataset.num_test=60")


@pytest.fixture
def experiment(composed) -> Callable[..., Experiment]:
    """Make an untrained experiment on `pronoun`; its weights are thrice as large as they start."""

    def make(*overrides: str) -> Experiment:
        return sharp(composed("dataset=pronoun", *SMALL, *overrides))

    return make
