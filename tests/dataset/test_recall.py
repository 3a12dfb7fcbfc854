"""Recall tasks: sizes at their edges, distributions as described, and what cannot be is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.associative_recall import AssociativeRecall
from attnlab.dataset.compositional_mqar import CompositionalMQAR
from attnlab.dataset.forgetting_mqar import ForgettingMQAR
from attnlab.dataset.induction import Induction
from attnlab.dataset.induction_head import InductionHead
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.stacked_mqar import StackedMQAR
from attnlab.split import IGNORE, Batch, ExampleArrays
from tests.dataset.drawing import FEW, SEEDS, holds, rows
from tests.refused_calls import refused_calls


def batch(drawn: ExampleArrays) -> Batch:
    tensors = (None if part is None else torch.from_numpy(part) for part in drawn)
    inputs, targets, at, valid = (
        t.long() if t is not None and t.dtype != torch.bool else t for t in tensors
    )
    assert inputs is not None
    assert targets is not None
    return Batch(inputs, targets, at, valid)


@FEW
@given(pairs=st.integers(1, 6), room=st.integers(0, 9), spare=st.integers(0, 5), seed=SEEDS)
def test_mqar_is_right_at_every_size(pairs, room, spare, seed):
    sizes = {"vocab_size": 2 * (pairs + 1 + spare), "length": 4 * pairs + 2 * room}
    holds("mqar", MQAR(num_pairs=pairs, **sizes), seed)
    holds("mqar_zoology", MQAR(num_pairs=pairs, random_filler=True, **sizes), seed)


@FEW
@given(side=st.integers(1, 3), room=st.integers(0, 9), spare=st.integers(0, 5), seed=SEEDS)
def test_compositional_mqar_is_right_at_every_size(side, room, spare, seed):
    third = max(side + 1, side**2) + spare
    sizes = {"vocab_size": 3 * third, "length": 6 * side**2 + room, "num_pairs": side**2}
    holds("compositional_mqar", CompositionalMQAR(**sizes), seed)
    holds("compositional_mqar_zoology", CompositionalMQAR(random_filler=True, **sizes), seed)


@FEW
@given(pairs=st.integers(1, 6), data=st.data(), room=st.integers(0, 5), seed=SEEDS)
def test_forgetting_mqar_is_right_at_every_size(pairs, data, room, seed):
    updates = data.draw(st.integers(0, pairs))
    task = ForgettingMQAR(
        vocab_size=2 * max(pairs + 1, pairs + updates),
        length=4 * pairs + 2 * updates + 2 * room,
        num_pairs=pairs,
        num_updates=updates,
    )
    holds("forgetting_mqar", task, seed)


@FEW
@given(pairs=st.integers(1, 5), passes=st.integers(1, 3), spare=st.integers(0, 3), seed=SEEDS)
def test_stacked_mqar_is_right_at_every_size(pairs, passes, spare, seed):
    task = StackedMQAR(num_keys=pairs + spare, num_values=pairs, num_pairs=pairs, num_passes=passes)
    holds("stacked_mqar", task, seed)


@FEW
@given(half=st.integers(1, 26), data=st.data(), seed=SEEDS)
def test_associative_recall_is_right_at_every_size(half, data, seed):
    pairs = data.draw(st.integers(1, half))
    holds("associative_recall", AssociativeRecall(vocab_size=2 * half, num_pairs=pairs), seed)


@FEW
@given(vocab=st.integers(3, 27), length=st.integers(4, 12), more=st.integers(1, 9), seed=SEEDS)
def test_induction_head_is_right_at_every_size(vocab, length, more, seed):
    task = InductionHead(vocab_size=vocab, length=length, test_lengths=[length + more])
    for split in ("train", f"test_{length + more}"):
        holds("induction_head", task, seed, split)
        lengths = task.slices(batch(rows(task, 64, split)))["length"]
        low, high = task.lengths(split)
        assert low <= lengths.min() <= lengths.max() <= high


@pytest.mark.parametrize(
    ("task", "told", "apart", "space"),
    [
        (CompositionalMQAR(), 12, 3, 17),
        (ForgettingMQAR(), 24, 2, 20),
    ],
)
def test_questions_follow_the_power_law(task, told, apart, space):
    n = 20 * 1024
    at = rows(task, n).at
    assert at is not None
    weights = np.arange(1, space + 1) ** (0.01 - 1)
    slots = np.bincount((at[:, 0] - told) // apart, minlength=space)
    assert chisquare(slots, n * weights / weights.sum()).pvalue > 1e-3


def test_no_cell_of_the_grid_is_told_sooner_than_another():
    inputs = rows(CompositionalMQAR(), 8192).inputs
    for keys in (inputs[:, 0:12:3], inputs[:, 1:12:3]):
        smaller = (keys == keys.min(axis=1, keepdims=True)).astype(int)
        # The two places of the smaller key: any two of four.
        pairs = smaller @ [1, 2, 4, 8]
        assert chisquare(np.bincount(pairs)[[3, 5, 6, 9, 10, 12]]).pvalue > 1e-3


def test_random_filler_changes_the_filler_of_compositional_mqar_alone():
    plain, values, at, _ = rows(CompositionalMQAR())
    noisy, noisy_values, noisy_at, _ = rows(CompositionalMQAR(random_filler=True))
    assert at is not None
    assert noisy_at is not None
    assert np.array_equal(at, noisy_at)
    assert np.array_equal(values, noisy_values)
    assert np.array_equal(noisy[plain > 0], plain[plain > 0])
    assert chisquare(np.bincount(noisy[plain == 0], minlength=256)).pvalue > 1e-3


def test_every_key_is_as_likely_to_get_a_new_value_and_slices_tell_which_did():
    task = ForgettingMQAR(num_updates=3)
    drawn = rows(task, 8192)
    updated = task.slices(batch(drawn))["updated"].numpy()
    assert (updated.sum(axis=1) == 3).all()
    assert updated.max() == 1
    assert chisquare(updated.sum(axis=0)).pvalue > 1e-3
    firsts = drawn.inputs[:, 1:16:2]
    assert np.array_equal(firsts != drawn.targets, updated == 1)
    # zoology's can repeat the old value, or another's.
    values = np.sort(drawn.inputs[:, 1:22:2], axis=1)
    assert (values[:, 1:] > values[:, :-1]).all()


def test_distances_count_the_tokens_since_the_last_value():
    drawn = rows(task := ForgettingMQAR(), 64)
    distance = task.slices(batch(drawn))["distance"].numpy()
    assert drawn.at is not None
    values = np.take_along_axis(drawn.inputs, drawn.at - distance, axis=1)
    assert np.array_equal(values, drawn.targets)
    drawn = rows(task := CompositionalMQAR(), 64)
    distance = task.slices(batch(drawn))["distance"].numpy()
    assert drawn.at is not None
    values = np.take_along_axis(drawn.inputs, drawn.at - distance, axis=1)
    assert np.array_equal(values, drawn.targets)
    drawn = rows(pairs := AssociativeRecall(), 64)
    distance = pairs.slices(batch(drawn))["distance"].numpy()
    values = np.take_along_axis(drawn.inputs, 20 - distance[:, None], axis=1)
    assert np.array_equal(values, drawn.targets)
    drawn = rows(heads := InductionHead(), 64)
    distance = heads.slices(batch(drawn))["distance"].numpy()
    values = np.take_along_axis(drawn.inputs, 29 - distance[:, None], axis=1)
    assert np.array_equal(values, drawn.targets)


def test_each_pass_shows_every_pair_once_in_an_order_of_its_own():
    task = StackedMQAR(num_passes=3)
    drawn = rows(task, 2048)
    passes = drawn.inputs[:, :24].reshape(-1, 3, 8)
    assert (np.sort(passes, axis=2) == np.sort(passes, axis=2)[:, :1]).all()
    assert chisquare(np.bincount((passes[:, 0, :1] == passes[:, 1]).argmax(axis=1))).pvalue > 1e-3
    distance = task.slices(batch(drawn))["distance"].numpy()
    assert drawn.at is not None
    pair = np.take_along_axis(drawn.inputs, drawn.at - distance, axis=1)
    assert np.array_equal(pair % 16 + 256 + 16, drawn.targets)
    assert (drawn.at - distance >= 16).all()


def test_each_pair_is_as_likely_to_be_asked():
    drawn = rows(AssociativeRecall(num_pairs=8), 8192)
    place = (drawn.inputs[:, :-1:2] == drawn.inputs[:, -1:]).argmax(axis=1)
    assert chisquare(np.bincount(place, minlength=8)).pvalue > 1e-3


def test_the_special_token_stands_anywhere_but_at_the_last_two_places():
    drawn = rows(InductionHead(length=12), 8192)
    place = (drawn.inputs == 19).argmax(axis=1)
    assert place.max() == 8
    assert chisquare(np.bincount(place, minlength=9)).pvalue > 1e-3
    assert chisquare(np.bincount(drawn.targets[:, 0], minlength=19)).pvalue > 1e-3


def test_impossible_sizes_are_refused():
    refused_calls(
        "dataset.recall.{}",
        {
            "compositional_no_square": lambda: CompositionalMQAR(num_pairs=5),
            "compositional_no_pairs": lambda: CompositionalMQAR(num_pairs=0),
            "compositional_short": lambda: CompositionalMQAR(length=23),
            "compositional_one_first_key": lambda: CompositionalMQAR(vocab_size=8),
            "compositional_few_values": lambda: CompositionalMQAR(vocab_size=9),
            "forgetting_odd_vocab": lambda: ForgettingMQAR(vocab_size=255),
            "forgetting_no_pairs": lambda: ForgettingMQAR(num_pairs=0),
            "forgetting_many_updates": lambda: ForgettingMQAR(num_updates=9),
            "forgetting_short": lambda: ForgettingMQAR(length=38),
            "forgetting_few_values": lambda: ForgettingMQAR(vocab_size=22),
            "stacked_many_pairs": lambda: StackedMQAR(num_pairs=17),
            "stacked_no_keys": lambda: StackedMQAR(num_keys=0),
            "stacked_no_passes": lambda: StackedMQAR(num_passes=0),
            "associative_odd_vocab": lambda: AssociativeRecall(vocab_size=19),
            "associative_large_vocab": lambda: AssociativeRecall(vocab_size=54),
            "associative_many_pairs": lambda: AssociativeRecall(num_pairs=11),
            "head_large_vocab": lambda: InductionHead(vocab_size=28),
            "head_short": lambda: InductionHead(length=3),
            "head_short_tests": lambda: InductionHead(test_lengths=[30]),
        },
    )


def test_an_induction_is_told_by_the_length_of_its_segment():
    """A segment of n tokens comes twice, and its second half asks n times."""
    data = Induction(vocab_size=16, min_length=4, length=8, test_lengths=(), num_train=50)
    batch = data.splits["train"][:]
    lengths = data.slices(batch)["length"]
    assert torch.equal(lengths, (batch.targets != IGNORE).sum(dim=1))
    assert set(lengths.tolist()) == set(range(4, 9))
