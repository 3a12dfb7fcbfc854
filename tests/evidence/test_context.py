"""What a model makes of its context is what recomputing it with less context gives."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnlab.evaluation.evaluate import evaluate
from attnlab.evidence.context import ContextUse, context_band_ends
from attnlab.experiment import Experiment
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.interventions import limit_reach
from attnlab.split import IGNORE
from attnlab.tap import record
from tests.choices import causal_variants, dataset_words
from tests.prose import refuses

LENGTH = 12


@pytest.fixture(scope="module", params=[*causal_variants(), "one layer"])
def made(once, request) -> Experiment:
    """An untrained experiment, which no test changes."""
    name = request.param
    kind = ["variant=multihead", "depth=shallow"] if name == "one layer" else [f"variant={name}"]
    words = [*dataset_words("text"), f"dataset.length={LENGTH}", "model.d_model=16", *kind]
    return Experiment(once(*words, "dataset.validation=0.02", "dataset.test=0.02"))


@pytest.fixture(scope="module")
def measured(made) -> Mapping[str, float]:
    return ContextUse(made.subject).measure().scalars


def test_doublings_end_at_the_length():
    assert [context_band_ends(n) for n in (1, 2, 3, 8, 12)] == [
        *([1], [1, 2], [1, 2, 3]),
        *([1, 2, 4, 8], [1, 2, 4, 8, 12]),
    ]


def test_the_loss_after_n_tokens_is_that_of_a_model_given_n_tokens(made, measured):
    split = made.dataset.splits["test"]
    batch = split.batch(np.arange(len(split)))
    losses: dict[int, list[float]] = {}
    model = made.model.eval()
    with torch.no_grad():
        for seen in range(1, LENGTH + 1):
            logits = model(batch.inputs[:, :seen])[0][:, -1]
            target = batch.targets[:, seen - 1]
            known = target != IGNORE
            each = F.cross_entropy(logits[known], target[known], reduction="none")
            losses[seen] = each.tolist()
    for low, high in ((1, 1), (2, 2), (3, 4), (5, 8), (9, 12)):
        pooled = [x for seen in range(low, high + 1) for x in losses[seen]]
        assert measured[f"loss_{high}"] == pytest.approx(np.mean(pooled), abs=1e-5)


def test_the_bands_together_are_the_loss(made, measured):
    split = made.dataset.splits["test"]
    targets = split.batch(np.arange(len(split))).targets
    total = 0.0
    for low, high in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 12)):
        total += measured[f"loss_{high}"] * int((targets[:, low:high] != IGNORE).sum())
    whole = evaluate(made.subject, made.dataset.splits["test"], {})["loss"]
    assert total / int((targets != IGNORE).sum()) == pytest.approx(whole, abs=1e-5)


def test_an_lstm_is_measured_by_context_alone(made, measured):
    within = [name for name in measured if name.startswith("within_")]
    wanted = ["within_1", "within_2", "within_4", "within_8"]
    assert within == (wanted if made.model.attention_layers() else [])


def test_a_blind_model_sees_so_far_and_no_further(made):
    if not made.model.attention_layers():
        assert all_heads(made.model) == []
        return
    inputs = made.dataset.splits["test"].batch(np.arange(3)).inputs
    model = made.model.eval()
    with torch.no_grad():
        whole = model(inputs)[0]
        for bound in (1, 3, LENGTH):
            with limit_reach(model, bound), record(model, "*.pattern") as patterns:
                logits = model(inputs)[0]
            distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)[None]
            for pattern in patterns.values():
                assert pattern[..., distance >= bound].eq(0).all()
                assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-6)
            # What lies further back than all layers together reach changes nothing.
            reach = len(patterns) * (bound - 1)
            last = LENGTH - 1
            if reach < last:
                changed = inputs.clone()
                changed[:, : last - reach] = (changed[:, : last - reach] + 1) % 5
                with limit_reach(model, bound):
                    other = model(changed)[0]
                assert torch.allclose(other[:, last], logits[:, last], atol=1e-5)
        assert torch.allclose(logits, whole, atol=1e-6)
        with limit_reach(model, 1):
            alone = model(inputs)[0]
        assert not torch.allclose(alone, whole, atol=1e-4)


def test_a_bound_below_one_is_refused(made):
    with refuses(ValueError, "evidence.context.bound"), limit_reach(made.model, 0):
        pass
