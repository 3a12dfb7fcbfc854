"""Parity, majority, even pairs, cycles and sums of products: what their strings are like."""

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.base import Task, random_stream
from attnlab.dataset.cycle_navigation import CycleNavigation
from attnlab.dataset.even_pairs import EvenPairs
from attnlab.dataset.majority import Majority
from attnlab.dataset.modular_arithmetic import ModularArithmetic
from attnlab.dataset.parity import Parity
from attnlab.split import IGNORE, ExampleArrays
from tests.dataset.checks import cycle_navigation, even_pairs, majority, modular_arithmetic, parity
from tests.dataset.drawing import SEEDS, blocks
from tests.depth import examples
from tests.refused_calls import refused_calls

KINDS = {
    Parity: parity.answers,
    Majority: majority.answers,
    EvenPairs: even_pairs.answers,
    CycleNavigation: cycle_navigation.answers,
    ModularArithmetic: modular_arithmetic.answers,
}
CUMULATIVE = (Parity, Majority)


def faults(task: Task, rows: ExampleArrays, check) -> int:
    """Count the examples whose labels are not those of the checker."""
    assert rows.valid is not None
    wrong, names = 0, task.classes or task.tokens
    for row in range(len(rows.inputs)):
        words = [task.tokens[token] for token in rows.inputs[row, rows.valid[row]]]
        at = range(len(words)) if rows.at is None else rows.at[row].tolist()
        labels = [names[label] for label in rows.targets[row] if label != IGNORE]
        wrong += check(words, task) != dict(zip(at, labels, strict=True))
    return wrong


@examples(25)
@given(
    kind=st.sampled_from(list(KINDS)),
    low=st.integers(2, 9),
    more=st.integers(0, 9),
    beyond=st.integers(2, 20),
    seed=SEEDS,
)
def test_any_sizes_give_right_labels_in_every_split(kind, low, more, beyond, seed):
    if kind is ModularArithmetic and more == 0:
        more = 1
    task = kind(min_length=low, length=low + more, test_lengths=[low + more + beyond])
    for split in task.split_names:
        rows = task.draw_examples(random_stream(seed, split, 0), 12, split)
        assert faults(task, rows, KINDS[kind]) == 0
        assert rows.valid is not None
        shortest, longest = task.lengths(split)
        counted = rows.valid.sum(axis=1) - 1
        assert shortest <= counted.min() <= counted.max() <= longest


@pytest.mark.parametrize("kind", CUMULATIVE)
def test_with_cumulative_every_position_is_asked(kind):
    task = kind(min_length=1, length=9, test_lengths=(), cumulative=True)
    rows = blocks(task, 1)
    assert task.classes is None
    assert rows.valid is not None
    assert rows.inputs.shape == rows.targets.shape == (1024, 9)
    assert np.array_equal(rows.targets != IGNORE, rows.valid)
    assert faults(task, rows, KINDS[kind]) == 0


@pytest.mark.parametrize(
    ("kind", "cumulative"), [(Parity, False), (Majority, False), (Parity, True), (Majority, True)]
)
def test_of_one_length_the_rows_are_those_of_zoology(kind, cumulative):
    task = kind(min_length=12, length=12, test_lengths=(), cumulative=cumulative)
    inputs, targets, at, valid = blocks(task, 1)
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
    valid = blocks(task, 4).valid
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
    inputs = blocks(task, 2).inputs[:, :21]
    if kind is not ModularArithmetic:
        assert chisquare(np.unique(inputs, return_counts=True)[1]).pvalue > 1e-3
        return
    for part in (inputs[:, ::2], inputs[:, 1::2]):
        assert chisquare(np.unique(part, return_counts=True)[1]).pvalue > 1e-3


def test_a_test_of_longer_strings_begins_beyond_the_others():
    task = Parity(min_length=5, length=20, test_lengths=[60, 30], num_train=50)
    assert task.split_names == ("test", "validation", "train", "test_30", "test_60")
    longest = {}
    for split, of_split in task.splits.items():
        valid = of_split[:].valid
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
    for digits, operations, right in zip(numbers, signs, [2, 4, 0], strict=True):
        operators = ["+-*".index(sign) for sign in operations] + [0] * (
            len(digits) - len(operations)
        )
        count = np.array([len(operations) + 1], dtype=np.int16)
        operands = np.array([digits], dtype=np.int16), np.array([operators], dtype=np.int16)
        assert task._evaluate(*operands, count).tolist() == [right]


def test_majority_knows_how_often_a_guess_is_right():
    task = Majority(min_length=2, length=3, test_lengths=())
    strings = [bits for n in (2, 3) for bits in itertools.product((0, 1), repeat=n)]
    shares = [np.mean([2 * sum(s) <= n for s in strings if len(s) == n]) for n in (2, 3)]
    assert task.chance == pytest.approx(np.mean(shares))
    assert shares[0] == pytest.approx((1 + comb(2, 1) / 4) / 2)


def test_walks_end_anywhere_on_the_circle():
    targets = blocks(CycleNavigation(min_length=40), 8).targets
    assert chisquare(np.bincount(targets[:, 0])).pvalue > 1e-3


def test_a_text_is_asked_at_its_end_sign():
    assert Parity().batch_of_text("1 0 1 =").at == 3
    assert Parity(cumulative=True).batch_of_text("1 0 1").at is None
    assert EvenPairs().label_positions(["a", "b", "="]) == [2]
    refused_calls(
        "dataset.regular.{}",
        {
            "majority_no_end": lambda: Majority().batch_of_text("1 0 1"),
            "cycle_no_end": lambda: CycleNavigation().batch_of_text("+ -"),
            "arithmetic_no_end": lambda: ModularArithmetic().batch_of_text("1 + 1"),
            "pairs_no_end": lambda: EvenPairs().batch_of_text("a b"),
        },
    )


def test_examples_can_be_checked_by_eye():
    for kind, check in KINDS.items():
        task = kind(num_train=10)
        read, answer_line = task.show().splitlines()
        ((at, label),) = check(read.split(), task).items()
        assert answer_line == f"at {at} ('='): {label}"
    for kind in CUMULATIVE:
        task = kind(num_train=10, cumulative=True)
        read, answer_line = task.show().splitlines()
        labels = KINDS[kind](read.split(), task)
        assert answer_line == f"answers: {' '.join(labels.values())}"


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.regular.{}",
        {
            "parity_nothing": lambda: Parity(min_length=0),
            "parity_short": lambda: Parity(min_length=41),
            "parity_short_tests": lambda: Parity(test_lengths=[40]),
            "majority_nothing": lambda: Majority(min_length=0),
            "cycle_nothing": lambda: CycleNavigation(min_length=0),
            "arithmetic_nothing": lambda: ModularArithmetic(min_length=0),
            "pairs_of_one": lambda: EvenPairs(min_length=1),
            "one_place": lambda: CycleNavigation(num_places=1),
            "modulus_one": lambda: ModularArithmetic(modulus=1),
            "even_lengths": lambda: ModularArithmetic(min_length=4, length=4),
            "even_test_lengths": lambda: ModularArithmetic(length=41, test_lengths=[42]),
        },
    )
