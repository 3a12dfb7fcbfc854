"""Every loop over a split asks the same about an example, however examples are put together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlab.callbacks.head_scores import HeadRecorder
from attnlab.evaluation.evaluate import evaluate
from attnlab.evidence.gates import LSTMGates
from attnlab.evidence.heads import StrongestHeads
from attnlab.evidence.routing import ExpertRouting
from attnlab.experiment import Experiment
from attnlab.interp.capture import capture
from attnlab.interp.expert_routing import compute_routing
from attnlab.interp.head_stats import head_statistics
from attnlab.interp.importance import head_importance
from attnlab.interp.interventions import mean_patterns
from attnlab.interp.lstm_gates import gate_statistics
from attnlab.interp.patching import patch
from attnlab.interp.subject import Subject
from attnlab.layers import HeadRef
from attnlab.split import IGNORE, Batch, Split

COUNT = 30
SIZES = (f"dataset.num_validation={COUNT}", f"dataset.num_test={COUNT}", "dataset.num_train=40")
MASKED = ("dataset=pronoun", "objective=masked", "evidence=none", "model.d_model=16", *SIZES)

Look = Callable[[Subject, Split], object]
LOOKS: dict[str, tuple[str, Look]] = {
    "evaluate": ("multihead", lambda s, split: evaluate(s, split, {})),
    "evaluate by 7": ("multihead", lambda s, split: evaluate(s, split, {}, batch_size=7)),
    "head_statistics": ("multihead", head_statistics),
    "head_statistics by 4": ("multihead", lambda s, split: head_statistics(s, split, batch_size=4)),
    "mean_patterns": ("multihead", mean_patterns),
    "importance": ("multihead", head_importance),
    "routing by 9": ("moe", lambda s, split: compute_routing(s, split, batch_size=9)),
    "gate_statistics by 9": ("lstm", lambda s, split: gate_statistics(s, split, batch_size=9)),
    "StrongestHeads": ("multihead", lambda s, _: StrongestHeads(s, batch_size=11).measure()),
    "ExpertRouting": ("moe", lambda s, _: ExpertRouting(s, batch_size=11).measure()),
    "LSTMGates": ("lstm", lambda s, _: LSTMGates(s, batch_size=11).measure()),
}
"""The loops over a split, each with a variant that it can look into."""


@pytest.fixture
def made(once) -> Callable[[str], Experiment]:
    return lambda variant: Experiment(once(*MASKED, f"variant={variant}"))


@contextmanager
def watched(subject: Subject) -> Iterator[list[Tensor]]:
    """Collect the inputs that the model is given."""
    given: list[Any] = []
    hook = subject.model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        yield given
    finally:
        hook.remove()


@contextmanager
def precision_required(subject: Subject) -> Iterator[Subject]:
    """Give the subject with a precision of its own, and fail where a pass is made without it."""
    entered: list[bool] = []
    passes: list[bool] = []

    @contextmanager
    def precision() -> Iterator[None]:
        entered.append(True)
        try:
            yield
        finally:
            entered.pop()

    hook = subject.model.register_forward_pre_hook(lambda _, __: passes.append(bool(entered)))
    try:
        yield replace(subject, precision=precision)
    finally:
        hook.remove()
    assert passes
    assert all(passes)


def whole(asked: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    batches = list(asked)
    return torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches])


@pytest.mark.parametrize("name", LOOKS)
def test_every_look_sees_the_same_masked_tokens_of_an_example(made, name):
    variant, look = LOOKS[name]
    experiment = made(variant)
    subject = experiment.subject
    split = experiment.dataset.splits[experiment.dataset.report_split]
    expected, _ = whole(subject.batches(split, batch_size=1))
    assert (expected == len(experiment.dataset.tokens)).any(dim=1).float().mean() > 0.5
    with watched(subject) as given:
        look(subject, split)
    assert torch.equal(torch.cat(given), expected)


@pytest.mark.parametrize("name", LOOKS)
def test_every_look_is_in_the_precision_of_the_run(made, name):
    variant, look = LOOKS[name]
    experiment = made(variant)
    split = experiment.dataset.splits[experiment.dataset.report_split]
    with precision_required(experiment.subject) as subject:
        look(subject, split)


@pytest.mark.parametrize("variant", ["multihead", "lstm"])
def test_a_text_is_captured_in_the_precision_of_the_run(made, variant):
    experiment = made(variant)
    with precision_required(experiment.subject) as subject:
        capture(subject, experiment.dataset.splits["test"][0:1])


@pytest.mark.parametrize("objective", ["masked", "denoising"])
def test_no_size_of_batches_moves_the_noise_of_an_example(once, objective):
    experiment = Experiment(once(*MASKED, f"objective={objective}"))
    subject, split = experiment.subject, experiment.dataset.splits["validation"]
    inputs, targets = whole(subject.batches(split))
    assert len(inputs) == COUNT
    assert not torch.equal(inputs, split[:COUNT].inputs)
    for size in (1, 7, COUNT):
        again = whole(subject.batches(split, batch_size=size))
        assert torch.equal(again[0], inputs)
        assert torch.equal(again[1], targets)
    some = whole(subject.batches(split, batch_size=4, num_examples=10))
    assert torch.equal(some[0], inputs[:10])
    # Another look at the whole split is the same look again.
    torch.manual_seed(5)
    assert torch.equal(whole(subject.batches(split))[0], inputs)


def test_two_looks_give_the_loss_of_the_same_questions(made):
    experiment = made("multihead")
    subject, split = experiment.subject, experiment.dataset.splits["validation"]
    total, labels = 0.0, 0
    with subject.observed():
        for asked in subject.batches(split, batch_size=4):
            logits, _ = subject.model(*asked.model_inputs)
            total += float(subject.objective.loss(logits, asked.targets, "sum"))
            labels += int((asked.targets != IGNORE).sum())
    assert labels > COUNT
    for size in (None, 7):
        found = evaluate(subject, split, {}, batch_size=size)["loss"]
        assert found == pytest.approx(total / labels, rel=1e-5)
    assert head_importance(subject, split).loss == pytest.approx(total / labels, rel=1e-5)


def test_what_is_recorded_of_heads_is_of_the_same_questions(made):
    experiment = made("multihead")
    subject = experiment.subject
    expected, _ = whole(subject.batches(experiment.dataset.splits["validation"], num_examples=12))
    with watched(subject) as given:
        HeadRecorder(subject, num_examples=12).rows(3)
    assert torch.equal(torch.cat(given), expected)


def test_questions_stand_beside_the_examples_as_the_data_have_them(made):
    experiment = made("multihead")
    subject, split = experiment.subject, experiment.dataset.splits["test"]
    questions = list(subject.paired_batches(split, batch_size=7))
    assert [len(question.examples.inputs) for question in questions] == [7, 7, 7, 7, 2]
    at = 0
    for examples, asked in questions:
        plain = split[at : at + len(examples.inputs)]
        assert torch.equal(examples.inputs, plain.inputs)
        assert examples.noise_key is not None
        assert examples.noise_key.tolist() == list(range(at, at + len(examples.inputs)))
        hidden = asked.targets != IGNORE
        assert torch.equal(asked.targets[hidden], plain.inputs[hidden])
        at += len(examples.inputs)


def test_batches_that_are_given_are_asked_as_they_are(made):
    experiment = made("multihead")
    subject, split = experiment.subject, experiment.dataset.splits["test"]
    batches = [split[0:3], split[3:4]]
    asked = list(subject.batches(batches))
    for one, other in zip(asked, batches, strict=True):
        assert torch.equal(one.inputs, other.inputs)


def test_twins_are_asked_alike(experiment):
    made = experiment("depth=shallow")
    subject, twins = made.subject, made.dataset.contrast_pairs()
    with watched(subject) as given:
        patch(subject, twins, [HeadRef(0, 0)])
    one, other, again = given
    assert torch.equal(one, again)
    assert ((one != other).sum(dim=1) == 1).all()


def test_a_subject_is_observed_without_a_trace(experiment):
    made = experiment("model.dropout=0.5")
    subject, model = made.subject, made.model.train()
    before = torch.get_rng_state()
    with subject.observed():
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert subject.dataset is made.dataset
    assert subject.device == torch.device("cpu")
    assert subject.batch_size == made.batch_size


def test_a_split_is_asked_in_batches_of_training_or_larger(made):
    experiment = made("multihead")
    split = experiment.dataset.splits["test"]
    for size in (1, 64, 1000):
        subject = Subject(experiment.model, experiment.objective, batch_size=size)
        (asked,) = subject.batches(split)
        assert len(asked.inputs) == COUNT
