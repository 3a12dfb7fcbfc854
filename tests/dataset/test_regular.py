"""Parity, majority, even pairs, cycles and sums of products: what their strings are like."""

import itertools
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.base import Task, stream
from attnlab.dataset.cycle_navigation import CycleNavigation
from attnlab.dataset.even_pairs import EvenPairs
from attnlab.dataset.majority import Majority
from attnlab.dataset.modular_arithmetic import ModularArithmetic
from attnlab.dataset.parity import Parity
from attnlab.split import IGNORE, Rows
from tests.dataset.checks import cycle_navigation, even_pairs, majority, modular_arithmetic, parity

KINDS = {
    Parity: parity.answers,
    Majority: majority.answers,
    EvenPairs: even_pairs.answers,
    CycleNavigation: cycle_navigation.answers,
    ModularArithmetic: modular_arithmetic.answers,
}
CUMULATIVE = (Parity, Majority)


def joined(*arrays: Any) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)


def drawn(task: Task, blocks: int = 8, split: str = "train") -> Rows:
    parts = [task.rows(stream(5, split, block), 1024, split) for block in range(blocks)]
    return Rows(*map(joined, *parts))


def faults(task: Task, rows: Rows, check) -> int:
    """Count the examples whose labels are not those of the checker."""
    assert rows.valid is not None
    wrong, names = 0, task.classes or task.tokens
    for row in range(len(rows.inputs)):
        words = [task.tokens[token] for token in rows.inputs[row, rows.valid[row]]]
        at = range(len(words)) if rows.at is None else rows.at[row].tolist()
        labels = [names[label] for label in rows.targets[row] if label != IGNORE]
        wrong += check(words, task) != dict(zip(at, labels, strict=True))
    return wrong


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    low=st.integers(2, 9),
    more=st.integers(0, 9),
    beyond=st.integers(2, 20),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_sizes_give_right_labels_in_every_split(kind, low, more, beyond, seed):
    if kind is ModularArithmetic and more == 0:
        more = 1
    task = kind(min_length=low, length=low + more, test_lengths=[low + more + beyond])
    for split in task.split_names:
        rows = task.rows(stream(seed, split, 0), 12, split)
        assert faults(task, rows, KINDS[kind]) == 0
        assert rows.valid is not None
        shortest, longest = task.lengths(split)
        counted = rows.valid.sum(axis=1) - 1
        assert shortest <= counted.min() <= counted.max() <= longest


@pytest.mark.parametrize("kind", CUMULATIVE)
def test_with_cumulative_every_position_is_asked(kind):
    task = kind(min_length=1, length=9, test_lengths=(), cumulative=True)
    rows = drawn(task, 1)
    assert task.classes is None
    assert rows.valid is not None
    assert rows.inputs.shape == rows.targets.shape == (1024, 9)
    assert np.array_equal(rows.targets != IGNORE, rows.valid)
    assert faults(task, rows, KINDS[kind]) == 0


@pytest.mark.parametrize("kind", CUMULATIVE)
@pytest.mark.parametrize("cumulative", [False, True])
def test_of_one_length_the_rows_are_those_of_zoology(kind, cumulative):
    task = kind(min_length=12, length=12, test_lengths=(), cumulative=cumulative)
    inputs, targets, at, valid = drawn(task, 1)
    assert valid is not None
    assert valid.all()
    bits = inputs[:, :12]
    assert set(np.unique(bits)) == {0, 1}
    if not cumulative:
        assert (inputs[:, 12] == 2).all()
        assert at is not None
        assert (at == 12).all()
    ones = bits.cumsum(axis=1)
    label = ones % 2 if kind is Parity else ones > np.arange(1, 13) / 2
    assert np.array_equal(targets, label if cumulative else label[:, -1:])


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_uniform(kind):
    task = kind(min_length=3, length=22)
    valid = drawn(task).valid
    assert valid is not None
    lengths = valid.sum(axis=1) - 1
    counts = np.bincount(lengths, minlength=23)[3:]
    if kind is ModularArithmetic:
        assert not counts[1::2].any()
        counts = counts[::2]
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_is_as_frequent_as_the_others_of_its_place(kind):
    task = kind(min_length=21, length=21, test_lengths=())
    inputs = drawn(task, 2).inputs[:, :21]
    if kind is not ModularArithmetic:
        assert chisquare(np.unique(inputs, return_counts=True)[1]).pvalue > 1e-3
        return
    for part in (inputs[:, ::2], inputs[:, 1::2]):
        assert chisquare(np.unique(part, return_counts=True)[1]).pvalue > 1e-3


def test_a_test_of_longer_strings_begins_beyond_the_others():
    task = Parity(min_length=5, length=20, test_lengths=[60, 30], num_train=50)
    assert task.split_names == ("test", "validation", "train", "test_30", "test_60")
    longest = {}
    for split, examples in task.splits.items():
        valid = examples[:].valid
        assert valid is not None
        counted = valid.sum(dim=1) - 1
        longest[split] = valid.shape[1] - 1
        assert int(counted.min()) >= (21 if split.startswith("test_") else 5)
    assert longest == {"test": 20, "validation": 20, "train": 20, "test_30": 30, "test_60": 60}
    assert task.max_length == 61


def test_products_bind_more_tightly_than_sums_as_in_the_published_code():
    # The three examples of its docstring.
    task = ModularArithmetic()
    numbers = [[1, 2, 3, 0], [1, 1, 1, 0], [0, 1, 4, 3, 2]]
    signs = ["+*", "--", "*+*-"]
    for digits, said, right in zip(numbers, signs, [2, 4, 0], strict=True):
        operators = ["+-*".index(sign) for sign in said] + [0] * (len(digits) - len(said))
        count = np.array([len(said) + 1], dtype=np.int16)
        given = np.array([digits], dtype=np.int16), np.array([operators], dtype=np.int16)
        assert task._values(*given, count).tolist() == [right]


def test_majority_knows_how_often_a_guess_is_right():
    task = Majority(min_length=2, length=3, test_lengths=())
    strings = [bits for n in (2, 3) for bits in itertools.product((0, 1), repeat=n)]
    shares = [np.mean([2 * sum(s) <= n for s in strings if len(s) == n]) for n in (2, 3)]
    assert task.chance == pytest.approx(np.mean(shares))
    assert shares[0] == pytest.approx((1 + comb(2, 1) / 4) / 2)


def test_walks_end_anywhere_on_the_circle():
    targets = drawn(CycleNavigation(min_length=40), 8).targets
    assert chisquare(np.bincount(targets[:, 0])).pvalue > 1e-3


def test_a_text_is_asked_at_its_end_sign():
    assert Parity().read("1 0 1 =").at == 3
    with pytest.raises(ValueError, match='ends with "="'):
        Majority().read("1 0 1")
    assert Parity(cumulative=True).read("1 0 1").at is None
    assert EvenPairs().asked_at(["a", "b", "="]) == [2]
    for kind, text in ((CycleNavigation, "+ -"), (ModularArithmetic, "1 + 1"), (EvenPairs, "a b")):
        with pytest.raises(ValueError, match="ends with"):
            kind().read(text)


def test_examples_can_be_checked_by_eye():
    for kind, check in KINDS.items():
        task = kind(num_train=10)
        read, said = task.show().splitlines()
        ((at, label),) = check(read.split(), task).items()
        assert said == f"at {at} ('='): {label}"
    for kind in CUMULATIVE:
        task = kind(num_train=10, cumulative=True)
        read, said = task.show().splitlines()
        labels = KINDS[kind](read.split(), task)
        assert said == f"answers: {' '.join(labels.values())}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"min_length": 0}, "min_length=0 must be at least"),
        ({"min_length": 41}, "min_length=41 must not exceed length=40"),
        ({"test_lengths": [40]}, r"test_lengths=\[40\] must all be longer than length=40"),
        ({"num_train": 0}, "num_train=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_an_impossible_task_is_refused(kind, knobs, words):
    with pytest.raises(ValueError, match=words):
        kind(**knobs)


@pytest.mark.parametrize(
    ("kind", "knobs", "words"),
    [
        (EvenPairs, {"min_length": 1}, "min_length=1 must be at least 2"),
        (CycleNavigation, {"num_places": 1}, "num_places=1 must be at least 2"),
        (ModularArithmetic, {"modulus": 1}, "modulus=1 must lie in 2..100"),
        (ModularArithmetic, {"min_length": 4, "length": 4}, "of test has an odd number .* 4 and 4"),
        (
            ModularArithmetic,
            {"length": 41, "test_lengths": [42]},
            "test_42 has an odd number .* 42 and 42",
        ),
    ],
)
def test_an_impossible_size_of_its_own_is_refused(kind, knobs, words):
    with pytest.raises(ValueError, match=words):
        kind(**knobs)


def test_too_few_strings_for_the_splits_are_refused_in_words():
    with pytest.raises(ValueError, match="too few different examples"):
        _ = Parity(length=3, test_lengths=()).splits
