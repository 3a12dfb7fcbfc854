"""Metrics by hand, and by the implementations of others; slices of them by a loop."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassF1Score

from attnlab.evaluation.evaluate import evaluate
from attnlab.evaluation.slices import Slices
from attnlab.metric.accuracy import accuracy
from attnlab.metric.base import finish_metric, tally
from attnlab.metric.f1 import F1
from attnlab.metric.sequence_accuracy import sequence_accuracy
from attnlab.split import IGNORE


def answers(*numbers: int, classes: int = 3) -> torch.Tensor:
    """Logits whose likeliest outputs are these."""
    return torch.nn.functional.one_hot(torch.tensor([numbers]), classes).float()


def test_accuracy_is_over_tokens_and_not_over_classes():
    # Four of class 0, one of class 1: .8 over tokens, .5 over classes.
    logits, targets = answers(0, 0, 0, 0, 0), torch.tensor([[0, 0, 0, 0, 1]])
    sums, count = tally(accuracy, logits, targets)
    assert (sums / count).item() == pytest.approx(0.8)


def test_a_sequence_counts_once_and_only_without_a_mistake():
    logits = torch.cat((answers(0, 1, 2), answers(0, 1, 1), answers(0, 0, 0)))
    targets = torch.tensor([[0, 1, 2], [0, 1, 2], [0, IGNORE, IGNORE]])
    assert sequence_accuracy(logits, targets).tolist() == [1, 0, 1]
    asked_nowhere = torch.full((1, 3), IGNORE)
    sums, count = tally(
        sequence_accuracy,
        torch.cat((logits, answers(0, 0, 0))),
        torch.cat((targets, asked_nowhere)),
    )
    assert (sums.item(), count.item()) == (2, 3)


def test_f1_is_that_of_torchmetrics_over_all_batches():
    generator = torch.Generator().manual_seed(0)
    metric, theirs = F1(), MulticlassF1Score(7, average="macro", ignore_index=IGNORE)
    sums, count = torch.zeros(3, 7), torch.zeros(())
    for _ in range(3):
        logits = torch.randn(8, 5, 7, generator=generator)
        logits[..., 6] = -9
        targets = torch.randint(6, (8, 5), generator=generator)
        targets[torch.rand(8, 5, generator=generator) < 0.3] = IGNORE
        part, count = tally(metric, logits, targets)
        sums = sums + part
        theirs.update(logits.flatten(0, 1), targets.flatten())
    assert finish_metric(metric, sums, count).item() == pytest.approx(
        theirs.compute().item(), abs=1e-6
    )


@pytest.mark.parametrize("values", [range(5), range(0, 200, 3)])
def test_slices_average_what_counts_in_each(values):
    generator = np.random.default_rng(0)
    slices, kept = Slices(), []
    for _ in range(3):
        where = torch.from_numpy(generator.choice([*values], size=(6, 4)))
        scores = torch.from_numpy(generator.random((6, 4)))
        counted = torch.from_numpy(generator.random((6, 4)) < 0.7)
        slices.add({"distance": where}, "accuracy", scores, counted)
        kept += [*zip(where[counted].tolist(), scores[counted].tolist(), strict=True)]
    found = slices.mean_by_slice()
    binned = len(values) > 12
    for name, mean in found.items():
        low, _, high = name.removeprefix("accuracy@distance=").partition("-")
        inside = [s for at, s in kept if int(low) <= at <= int(high or low)]
        assert mean == pytest.approx(sum(inside) / len(inside)), name
        assert not high or int(high) == 2 * int(low) - 1
    assert any("-" in name for name in found) == binned
    assert len(found) == (len({math.frexp(at)[1] for at, _ in kept}) if binned else len(values))


def test_a_sequences_slice_is_that_of_all_its_labels():
    slices = Slices()
    slices.add(
        {"length": torch.tensor([3, 4])},
        "accuracy",
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        torch.ones(2, 2, dtype=torch.bool),
    )
    assert slices.mean_by_slice() == {"accuracy@length=3": 0.5, "accuracy@length=4": 1.0}


def test_slices_by_label_are_left_out_where_an_objective_asks_for_other_labels(composed):
    from attnlab.experiment import Experiment

    sizes = [f"dataset.num_{name}=64" for name in ("train", "validation", "test")]
    words = ("dataset=mqar", *sizes, "model.d_model=16", "model.num_layers=1")
    for objective, sliced in (("autoregressive", True), ("masked", False)):
        made = Experiment(composed(*words, f"objective={objective}"))
        split = made.dataset.splits["validation"]
        found = evaluate(
            *(made.subject, split, {"accuracy": accuracy}),
            batch_size=100,
            slicer=made.dataset.slices,
        )
        assert ("accuracy@distance=1" in found) == sliced
        assert "accuracy@num_pairs=8" in found
        whole = evaluate(made.subject, split, {"accuracy": accuracy}, batch_size=100)
        assert found["accuracy"] == whole["accuracy"]


def test_a_texts_loss_gives_perplexity_and_bits_per_byte(composed, tmp_path):
    from attnlab.experiment import Experiment

    (tmp_path / "text.txt").write_text("äbc" * 400)
    words = ("dataset=text", f"dataset.path={tmp_path}/text.txt", "dataset.length=8")
    derived = Experiment(composed(*words)).objective.derived_metrics("validation", math.log(2))
    # "ä" has two bytes of UTF-8, and the share of each letter is a third.
    assert derived["perplexity"] == pytest.approx(2)
    assert derived["bits_per_byte"] == pytest.approx(3 / 4)
