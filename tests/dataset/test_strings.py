"""Copying, sorting, induction and brackets: what their strings are like."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.base import random_stream
from attnlab.dataset.copying import Copying
from attnlab.dataset.dyck import Dyck
from attnlab.dataset.induction import Induction
from attnlab.dataset.sorting import Sorting
from attnlab.objective.autoregressive import Autoregressive
from attnlab.objective.base import BEGIN
from tests.dataset.checks import copying, dyck, induction, sorting
from tests.dataset.drawing import FEW, SEEDS, blocks, labels, words
from tests.refused_calls import refused_calls


@FEW
@given(
    kind=st.sampled_from([(Copying, copying), (Sorting, sorting)]),
    vocab_size=st.integers(2, 26),
    low=st.integers(1, 8),
    more=st.integers(0, 8),
    seed=SEEDS,
)
def test_any_row_has_its_answer(kind, vocab_size, low, more, seed):
    task_kind, check = kind
    longer = [low + more + 1, low + more + 7]
    task = task_kind(vocab_size=vocab_size, min_length=low, length=low + more, test_lengths=longer)
    for split in task.split_names:
        rows = task.draw_examples(random_stream(seed, split, 0), 8, split)
        shortest, longest = task.lengths(split)
        assert rows.inputs.shape == (8, longest)
        assert rows.targets.shape == (8, longest + 1)
        for row in range(8):
            read = words(task, rows, row)
            assert shortest <= len(read) <= longest
            assert labels(task, rows, row) == check.answers(read, task)


@pytest.mark.parametrize("kind", [Copying, Sorting])
def test_letters_and_lengths_are_uniform(kind):
    task = kind(vocab_size=7, min_length=3, length=12, test_lengths=())
    rows = blocks(task, 4)
    assert rows.valid is not None
    assert chisquare(np.bincount(rows.inputs[rows.valid])).pvalue > 1e-3
    assert chisquare(np.bincount(rows.valid.sum(axis=1))[3:]).pvalue > 1e-3


def test_an_autoregressive_model_reads_the_row_then_its_own_answer():
    task = Copying(num_train=4, num_validation=4, num_test=4)
    asked = Autoregressive(task).training_batch(task.splits["train"][0])
    names = [*task.tokens, BEGIN]
    assert asked.valid is not None
    read = [names[token] for token in asked.inputs[asked.valid].tolist()]
    half = read.index(BEGIN)
    assert read[:half] == read[half + 1 :]


@FEW
@given(
    vocab_size=st.integers(12, 300),
    low=st.integers(2, 6),
    more=st.integers(0, 5),
    seed=SEEDS,
)
def test_every_second_half_is_asked_for_what_followed_in_the_first(vocab_size, low, more, seed):
    task = Induction(vocab_size=vocab_size, min_length=low, length=low + more, test_lengths=[12])
    for split in task.split_names:
        rows = task.draw_examples(random_stream(seed, split, 0), 8, split)
        assert rows.at is not None
        for row in range(8):
            read = words(task, rows, row)
            half = len(read) // 2
            right = induction.answers(read, task)
            assert rows.at[row, :half].tolist() == list(right)
            assert labels(task, rows, row) == list(right.values())
            assert len(set(read)) == half


@pytest.mark.parametrize("vocab_size", [6, 40])
def test_segments_are_uniform_with_and_without_a_sort(vocab_size):
    # 5 of 6 tokens are put in order, 5 of 40 are drawn again when they repeat.
    task = Induction(vocab_size=vocab_size, min_length=5, length=5, test_lengths=())
    inputs = blocks(task, 4).inputs
    for place in range(5):
        assert chisquare(np.bincount(inputs[:, place], minlength=vocab_size)).pvalue > 1e-3
    first, second = inputs[:, 0].astype(int), inputs[:, 1]
    pairs = np.bincount((second - first) % vocab_size, minlength=vocab_size)
    assert pairs[0] == 0
    assert chisquare(pairs[1:]).pvalue > 1e-3


def test_chance_of_induction_is_one_of_the_segment():
    task = Induction(min_length=4, length=8, test_lengths=())
    valid = blocks(task, 4).valid
    assert valid is not None
    segment = valid.sum(axis=1) // 2
    assert task.chance == pytest.approx(len(segment) / segment.sum(), rel=0.02)


@FEW
@given(
    num_kinds=st.integers(2, 9),
    half=st.integers(1, 12),
    depth=st.floats(0, 1),
    seed=SEEDS,
)
def test_brackets_are_balanced_and_each_closing_one_is_asked(num_kinds, half, depth, seed):
    max_depth = 1 + int(depth * (half - 1))
    task = Dyck(num_kinds=num_kinds, max_depth=max_depth, length=2 * half)
    rows = task.draw_examples(random_stream(seed, "train", 0), 16, "train")
    assert rows.at is not None
    for row in range(16):
        right = dyck.answers(words(task, rows, row), task)
        assert dict(zip(rows.at[row].tolist(), labels(task, rows, row), strict=True)) == right


def test_a_bracket_opens_or_closes_with_equal_chance_where_both_can_be():
    task = Dyck(num_kinds=2, max_depth=3, length=8)
    rows = blocks(task, 4)
    opens = rows.inputs % 2 == 0
    # Where nothing is forced: 1 or 2 open of at most 3, and time to close them.
    depth = (2 * opens.astype(int) - 1).cumsum(axis=1) - (2 * opens.astype(int) - 1)
    free = (depth > 0) & (depth < 3) & (depth < 8 - np.arange(8))
    heads = opens[free].sum()
    assert chisquare([heads, free.sum() - heads]).pvalue > 1e-3
    assert opens[depth == 0].all()
    assert not opens[depth == 3].any()
    # Two kinds: openings are 0 and 2.
    assert chisquare(np.bincount(rows.inputs[opens] // 2)).pvalue > 1e-3
    assert Counter(depth.max(axis=1)).keys() <= {1, 2, 3}


def test_distances_are_those_between_a_bracket_and_its_partner():
    task = Dyck(num_train=20, num_validation=4, num_test=4, length=20)
    batch = task.splits["train"][:20]
    distances = task.slices(batch)["distance"]
    assert batch.at is not None
    for row in range(20):
        stack, right = [], {}
        for place, token in enumerate(batch.inputs[row].tolist()):
            if token % 2 == 0:
                stack.append(place)
            else:
                right[place - 1] = place - stack.pop()
        assert right == dict(zip(batch.at[row].tolist(), distances[row].tolist(), strict=True))


def test_examples_can_be_checked_by_eye():
    for kind, check in ((Copying, copying), (Sorting, sorting)):
        task = kind(num_train=10)
        read, answer_line = task.show().splitlines()
        assert answer_line.removeprefix("answer: ").split() == check.answers(read.split(), task)
    for kind, check in ((Induction, induction), (Dyck, dyck)):
        task = kind(num_train=10)
        read, answer_line = task.show().splitlines()
        right = list(check.answers(read.split(), task).values())
        assert answer_line.split(": ")[1].split() == right


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.strings.{}",
        {
            "copying_large_vocab": lambda: Copying(vocab_size=27),
            "sorting_small_vocab": lambda: Sorting(vocab_size=1),
            "copying_nothing": lambda: Copying(min_length=0),
            "sorting_nothing": lambda: Sorting(min_length=0),
            "copying_short": lambda: Copying(min_length=21),
            "sorting_short_tests": lambda: Sorting(test_lengths=[20]),
            "induction_short": lambda: Induction(min_length=1),
            "induction_small_vocab": lambda: Induction(vocab_size=63),
            "induction_large_vocab": lambda: Induction(vocab_size=2**16 + 1),
            "dyck_odd_length": lambda: Dyck(length=63),
            "dyck_one_kind": lambda: Dyck(num_kinds=1),
            "dyck_flat": lambda: Dyck(max_depth=0),
            "dyck_deep": lambda: Dyck(max_depth=33),
        },
    )
