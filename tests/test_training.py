"""Clock, schedule, optimizer, early stop, evaluation: the small parts of training."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnlab.callbacks.cadence import Cadence
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.pronoun import Pronoun
from attnlab.errors import Diverged
from attnlab.evaluation.evaluate import evaluate
from attnlab.experiment import Experiment
from attnlab.fit import build_training_module
from attnlab.interp.subject import Subject
from attnlab.metric.accuracy import accuracy
from attnlab.metric.top_k import top_k
from attnlab.model.base import DECODER, Model
from attnlab.objective.autoregressive import Autoregressive
from attnlab.objective.classification import Classification
from attnlab.optimizer.adamw import AdamW
from attnlab.schedule.constant import Constant
from attnlab.schedule.cosine import Cosine
from attnlab.split import IGNORE, Examples
from tests.prose import refuses

SMALL = [f"dataset.num_{split}=100" for split in ("train", "validation", "test")]


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 9), st.integers(1, 20))
def test_what_a_checkpoint_covers_is_written_before_it(steps, validate, log, save):
    cadence = Cadence(steps, validate, log_every=log, checkpoint_every=save)
    assert cadence.saves(steps)
    assert cadence.validates(steps)
    assert cadence.logs(steps)
    for step in range(1, steps + 1):
        assert cadence.writes(step) or not (cadence.saves(step) or cadence.validates(step))


def test_checkpoints_come_with_validations_unless_told_otherwise():
    cadence = Cadence(100, 30)
    assert [s for s in range(1, 101) if cadence.saves(s)] == [30, 60, 90, 100]


def test_the_cosine_rises_to_the_peak_and_falls_to_the_floor():
    schedule = Cosine(warmup_steps=10, floor=0.1)
    scales = [schedule.scale(step, 100) for step in range(101)]
    assert scales[0] == pytest.approx(1 / 11)
    assert scales[10] == 1
    assert scales[55] == pytest.approx(0.55)
    assert scales[100] == pytest.approx(0.1)
    assert scales[:11] == sorted(scales[:11])
    assert scales[10:] == sorted(scales[10:], reverse=True)


def test_the_constant_schedule_warms_up_and_stays():
    assert [Constant(warmup_steps=1).scale(step, 9) for step in range(4)] == [0.5, 1, 1, 1]


def test_matrices_decay_and_biases_and_norms_do_not(composed):
    model = Experiment(composed("variant=moe", *SMALL)).model
    optimizer = AdamW(lr=1.0, weight_decay=0.1).build(model)
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    for weights in model.parameters():
        weights.grad = torch.zeros_like(weights)
    optimizer.step()
    for name, weights in model.named_parameters():
        decays = weights.ndim > 1
        wanted = before[name] * (0.9 if decays else 1.0)
        torch.testing.assert_close(weights.detach(), wanted, msg=name)


def test_early_stopping_waits_and_then_stops():
    stop = EarlyStop(patience=2, min_delta=0.1)
    losses = [1.0, 0.5, 0.45, 0.44, 0.1]
    assert [stop.should_stop({"loss": loss}) for loss in losses] == [0, 0, 0, 1, 0]
    resumed = EarlyStop(patience=2, min_delta=0.1)
    for loss in losses[:2]:
        resumed.should_stop({"loss": loss})
    again = EarlyStop(patience=2, min_delta=0.1)
    again.load_state_dict(resumed.state_dict())
    assert [again.should_stop({"loss": loss}) for loss in losses[2:4]] == [False, True]


def test_early_stopping_at_a_threshold_knows_the_direction():
    accurate = EarlyStop(metric="accuracy", patience=None, threshold=0.9)
    assert [accurate.should_stop({"accuracy": a}) for a in (0.5, 0.95)] == [False, True]
    low = EarlyStop(metric="loss", patience=None, threshold=0.1)
    assert [low.should_stop({"loss": a}) for a in (0.5, 0.05)] == [False, True]
    with refuses(ValueError, "training.no_such_metric"):
        accurate.should_stop({"loss": 1.0})


def test_accuracy_is_over_labels_and_not_over_classes():
    # Four of five right, one class of three: a mean over classes would say .333.
    logits = torch.eye(3)[torch.tensor([[0, 0, 0, 0, 0]])]
    targets = torch.tensor([[0, 0, 0, 0, 1]])
    assert accuracy(logits, targets).mean().item() == pytest.approx(0.8)


def test_top_k_is_the_share_within_torchs_topk():
    logits, targets = torch.randn(4, 6, 9), torch.randint(9, (4, 6))
    for k in (1, 3, 9):
        wanted = (logits.topk(k).indices == targets[..., None]).any(-1).float()
        assert torch.equal(top_k(logits, targets, k=k), wanted)
    assert torch.equal(top_k(logits, targets, k=1), accuracy(logits, targets))


def test_a_causal_classifier_is_read_at_the_last_valid_token():
    task = Pronoun(num_train=10)
    batch = task.splits["test"].batch(np.arange(10))
    at_it, at_end = (Classification(task, causal=c).training_batch(batch).at for c in (False, True))
    assert at_it is not None
    assert at_end is not None
    for row, it, end in zip(batch.inputs, at_it[:, 0], at_end[:, 0], strict=True):
        assert (task.tokens[row[it]], task.tokens[row[end]]) == ("it", ".")


def test_plain_sequences_ask_for_every_next_token_but_padding():
    task = Pronoun(num_train=10)
    batch = task.splits["test"].batch(np.arange(10))
    asked = Autoregressive(task).training_batch(batch)
    assert Autoregressive(task).outputs == task.tokens
    assert asked.valid is not None
    assert batch.valid is not None
    for row in range(10):
        length = int(batch.valid[row].sum())
        assert asked.targets[row, : length - 1].tolist() == batch.inputs[row, 1:length].tolist()
        assert (asked.targets[row, length - 1 :] == IGNORE).all()


class Fixed(Model):
    """Answers with given logits, and draws as a careless model would."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.arrangement, self.head = DECODER, torch.nn.Identity()
        self.logits = torch.nn.Parameter(logits)

    def encode(self, inputs, valid=None, prefix=None, prefix_valid=None):
        torch.rand(3)
        assert not self.training
        return self.logits[inputs[:, 0]], {}

    def step(self, inputs, at, state=None):
        raise NotImplementedError

    def state_size(self, length):
        return None


def test_evaluation_averages_over_all_labels_of_uneven_batches():
    n = 7
    inputs = np.arange(n, dtype=np.int32)[:, None]
    targets = np.array([[0, 1], [1, IGNORE], [2, 2], [0, 0], [1, 0], [2, IGNORE], [0, 1]])
    logits = torch.randn(n, 2, 3)
    model, task = Fixed(logits).train(), MQAR(vocab_size=40, num_pairs=2)
    before = torch.get_rng_state()
    subject = Subject(model, Autoregressive(task))
    found = evaluate(subject, Examples(inputs, targets), {"accuracy": accuracy}, batch_size=3)
    counted = torch.from_numpy(targets) != IGNORE
    chosen = logits[counted].log_softmax(-1)
    truth = torch.from_numpy(targets)[counted]
    assert found["loss"] == pytest.approx(-chosen[torch.arange(12), truth].mean().item(), abs=1e-6)
    assert found["accuracy"] == pytest.approx((chosen.argmax(-1) == truth).float().mean().item())
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_evaluation_reads_a_models_own_gauges(composed):
    config = composed("variant=moe", *SMALL, "depth=shallow")
    experiment = Experiment(config)
    found = evaluate(
        experiment.subject,
        experiment.dataset.splits["validation"],
        experiment.metrics,
        batch_size=300,
    )
    loads = [value for name, value in found.items() if ".load." in name]
    assert len(loads) == 8
    assert sum(loads) == pytest.approx(1, abs=1e-5)
    assert found["blocks.0.ffn.drops"] == 0


def measured(experiment: Experiment, losses: list[float]):
    training = build_training_module(experiment)
    training.step_values = [
        (step, {"loss": torch.tensor(loss)}) for step, loss in enumerate(losses, start=1)
    ]
    return training


def test_a_broken_loss_is_told_with_its_step(composed):
    experiment = Experiment(composed(*SMALL))
    for key, loss in (("nan", math.nan), ("infinite", math.inf), ("risen", 45.0)):
        with refuses(Diverged, f"training.diverged.{key}") as raised:
            measured(experiment, [4.0, 3.0, loss, 2.0]).drain()
        assert isinstance(raised.value, Diverged)
        assert raised.value.step == 3


def test_a_loss_that_only_wavers_is_not_broken(composed):
    experiment = Experiment(composed(*SMALL, "callbacks.cadence.log_every=2"))
    rows = measured(experiment, [4.0, 9.0, 0.1, 8.0]).drain()
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 4.0), (2, 9.0), (4, 8.0)]


def test_the_identity_leaves_out_where_the_result_goes(composed):
    one, other = (
        Experiment(composed(*SMALL, *more)).identity
        for more in ((), ("runs_dir=elsewhere", "rerun=true"))
    )
    assert one == other
    assert one["trainer"]["threads"] == torch.get_num_threads()
