"""A step is the same step, whether its examples come at once or in several batches."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from attnlab.experiment import Experiment
from attnlab.fit import build_training_module
from attnlab.split import IGNORE
from attnlab.training import Training

CUTS = ((16, 1), (4, 4), (1, 16))
"""Batch size and batches in a step."""
ASKED = {
    "classification": ("dataset=pronoun", "metric=f1"),
    "causal classification": ("dataset=pronoun", "objective=causal_classification"),
    "autoregressive": ("dataset=mqar", "dataset.length=16", "dataset.num_pairs=2"),
    "autoregressive, classes": ("dataset=parity", "objective=autoregressive", "evidence=none"),
    "masked": ("dataset=pronoun", "objective=masked", "evidence=none"),
    "denoising": ("dataset=pronoun", "objective=denoising", "evidence=none"),
    "autoencoder": ("dataset=pronoun", "objective=autoencoder", "evidence=none"),
    "seq2seq": ("dataset=reversal", "objective.label_smoothing=0.1"),
}
SMALL = (
    *("dataset.num_train=64", "dataset.num_validation=16", "dataset.num_test=16"),
    *("model.d_model=16", "depth=shallow", "trainer.max_steps=3", "trainer.precision=64-true"),
    *("trainer.threads=1", "trainer.accelerator=cpu", "callbacks.cadence.log_every=1"),
    "schedule.warmup_steps=1",
)


def first_steps(experiment: Experiment) -> tuple[list[dict[str, float]], Training]:
    """Do the steps of a run by hand, as Lightning does them, and return their rows."""
    training, settings = build_training_module(experiment), experiment.settings
    training.to(torch.float64)
    configured = training.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    trainer = attached(training)
    size = settings.accumulate_grad_batches
    for step in range(settings.max_steps):
        trainer.global_step = step
        optimizer.zero_grad()
        for number in range(step * size, (step + 1) * size):
            loss = training.training_step(experiment.loader.batch(number), number)
            (loss / size).backward()
        training.configure_gradient_clipping(optimizer)
        optimizer.step()
        scheduler.step()
    return training.drain(), training


class Trainer:
    """What of Lightning's trainer the module asks for."""

    global_step = 0
    precision_plugin: Any = None


def attached(training: Any) -> Trainer:
    """Give a module such a trainer."""
    training._trainer = trainer = Trainer()
    return trainer


def clip_gradients(model: Any, optimizer: Any) -> None:
    """Do what Lightning does between the gradients and the step."""
    model.configure_gradient_clipping(optimizer)


@pytest.mark.parametrize("name", ASKED)
def test_a_step_in_parts_is_the_step_as_a_whole(composed, name):
    results = []
    config = composed(*ASKED[name], *SMALL)
    for batch_size, parts in CUTS:
        trainer = {**config.values["trainer"], "accumulate_grad_batches": parts}
        values = {**config.values, "batch_size": batch_size, "trainer": trainer}
        rows, training = first_steps(Experiment(replace(config, values=values)))
        results.append((rows, [p.detach() for p in training.model.parameters()]))
    for (rows, weights), (other_rows, other_weights) in pairwise(results):
        for row, other in zip(rows, other_rows, strict=True):
            assert row == pytest.approx(other, rel=1e-9, abs=1e-12)
        torch.testing.assert_close(weights, other_weights, rtol=1e-7, atol=1e-9)


def test_the_parts_of_a_step_have_unequal_numbers_of_targets(composed):
    """Without which the law above would say nothing."""
    experiment = Experiment(composed(*ASKED["seq2seq"], *SMALL, "batch_size=1"))
    counts = {
        int(
            (
                experiment.objective.training_batch(experiment.loader.batch(n)).targets != IGNORE
            ).sum()
        )
        for n in range(16)
    }
    assert len(counts) > 1


def test_the_row_has_the_loss_that_validation_has(composed):
    """Label smoothing is minimised, and no part of what is reported."""
    smooth, plain = (
        Experiment(composed("dataset=reversal", *SMALL, f"objective.label_smoothing={share}"))
        for share in (0.3, 0.0)
    )
    (smoothed, *_), _ = first_steps(smooth)
    (unsmoothed, *_), _ = first_steps(plain)
    assert smoothed["loss"] == unsmoothed["loss"]
    assert smoothed["grad_norm"] != unsmoothed["grad_norm"]


@pytest.mark.parametrize("clip", [0.5, None])
def test_scaled_gradients_are_unscaled_before_they_are_clipped(composed, clip):
    """Float16's loss scaling changes neither the norm that is logged nor the step that is done."""
    overrides = (*ASKED["seq2seq"], *SMALL, f"optimizer.gradient_clip={clip or 'null'}")
    updates, norms = [], []
    for scale in (None, 2.0**16):
        experiment = Experiment(composed(*overrides))
        training = build_training_module(experiment).to(torch.float64)
        optimizer = training.configure_optimizers()["optimizer"]
        trainer = attached(training)
        before = [p.detach().clone() for p in training.model.parameters()]

        loss = training.training_step(experiment.loader.batch(0), 0)
        if scale is None:
            loss.backward()
            training.configure_gradient_clipping(optimizer)
            optimizer.step()
        else:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            plugin = MixedPrecision("16-mixed", "cpu", scaler)
            trainer.precision_plugin = plugin
            plugin._after_closure = clip_gradients
            scaled = scaler.scale(loss)
            scaled.backward()
            plugin.optimizer_step(optimizer, training, lambda scaled=scaled: scaled)
        updates.append(
            [p.detach() - b for p, b in zip(training.model.parameters(), before, strict=True)]
        )
        norms.append(training.drain()[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    torch.testing.assert_close(updates[0], updates[1], rtol=1e-5, atol=1e-9)
