"""An estimate of the loss is one: around the whole, and closer with more batches."""

import numpy as np
import pytest
import torch

from attnlab.evidence.sampled import SampledLoss
from attnlab.experiment import Experiment
from attnlab.split import Windows
from tests.choices import dataset_words
from tests.prose import refuses


@pytest.fixture(scope="module")
def made(composed) -> Experiment:
    words = [*dataset_words("text"), "dataset.length=8", "model.d_model=16", "model.dropout=0.5"]
    return Experiment(composed(*words, "evidence=sampled"))


def estimate(made: Experiment, **knobs) -> float:
    return SampledLoss(made.subject, **knobs).measure().scalars["loss"]


def test_the_estimates_lie_around_the_loss_at_every_place(made):
    validation = made.dataset.splits["validation"]
    assert isinstance(validation, Windows)
    everywhere = Windows(validation.tokens, 8, 1)
    batch = everywhere.batch(np.arange(len(everywhere)))
    made.model.eval()
    with torch.no_grad():
        logits = made.model(batch.inputs)[0]
        each = made.objective.loss(logits, batch.targets, "none").reshape(len(everywhere), 8)
    made.model.train()
    places = each.mean(dim=1)
    for batches, batch_size in ((20, 12), (200, 12)):
        error = float(places.std()) / (batches * batch_size) ** 0.5
        found = estimate(made, batches=batches, batch_size=batch_size)
        assert abs(found - float(places.mean())) < 4 * error
        assert found != float(places.mean())


def test_a_batch_is_read_at_any_place(made):
    validation = made.dataset.splits["validation"]
    assert isinstance(validation, Windows)
    tokens = torch.from_numpy(np.array(validation.tokens))
    draw = np.random.Generator(np.random.Philox(key=3))
    starts = draw.integers(len(tokens) - 8, size=5)
    assert any(start % 8 for start in starts)
    windows = torch.stack([tokens[start : start + 9] for start in starts]).long()
    with torch.no_grad():
        logits = made.model.eval()(windows[:, :-1])[0]
    losses = -logits.log_softmax(-1).gather(-1, windows[:, 1:, None])
    assert estimate(made, batches=1, batch_size=5, seed=3) == pytest.approx(float(losses.mean()))


def test_the_places_are_those_of_the_seed_and_dropout_is_off(made):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = estimate(made)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert estimate(made) == first
    assert estimate(made, seed=1) != first


def test_no_batches_are_refused(made):
    with refuses(ValueError, "evidence.sampled.no_batches"):
        estimate(made, batches=0)
