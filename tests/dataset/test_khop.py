"""k-hop induction as the paper draws it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.base import random_stream
from attnlab.dataset.khop import KHop
from tests.dataset.checks import khop
from tests.dataset.drawing import FEW, SEEDS
from tests.refused_calls import refused_calls


@FEW
@given(max_hops=st.integers(0, 20), length=st.integers(4, 60), seed=SEEDS)
def test_any_string_is_hopped_right(max_hops, length, seed):
    task = KHop(max_hops=max_hops, length=length)
    inputs, targets, at, _ = task.draw_examples(random_stream(seed, "train", 0), 6, "train")
    assert at is not None
    for row in range(6):
        words = [task.tokens[token] for token in inputs[row]]
        labels = [task.tokens[label] for label in targets[row]]
        assert khop.answers(words, task) == dict(zip(at[row].tolist(), labels, strict=True))


def test_the_docstring_is_right():
    one_hop = khop.answers(["hop1", *"abcac"], KHop())
    two_hops = khop.answers(["hop2", *"abcac"], KHop())
    assert list(one_hop.values()) == ["~", "~", "~", "b", "a"]
    assert list(two_hops.values()) == ["~", "~", "~", "~", "b"]


def test_the_paper_has_23_tokens_and_99_positions():
    task = KHop(max_hops=16, length=99)
    assert len(task.tokens) == 23
    inputs, targets, at, _ = task.draw_examples(random_stream(0, "train", 0), 64, "train")
    assert inputs.shape == (64, 99)
    assert at is not None
    assert (at == np.arange(1, 99)).all()
    assert targets.shape == (64, 98)
    assert (inputs[:, 0] <= 16).all()


def test_hops_and_letters_are_drawn_as_in_the_paper():
    task = KHop(max_hops=16, length=99)
    inputs = np.concatenate(
        [
            task.draw_examples(random_stream(1, "train", block), 1024, "train").inputs
            for block in range(4)
        ]
    ).astype(int)
    assert chisquare(np.bincount(inputs[:, 0])).pvalue > 1e-3
    letters = inputs[:, 1:] - 17
    assert chisquare(np.bincount(letters[:, 0])).pvalue > 1e-3
    # After a letter, each of the other three is as likely.
    table = np.zeros((4, 4), dtype=int)
    np.add.at(table, (letters[:, :-1], letters[:, 1:]), 1)
    assert not table.diagonal().any()
    for letter in range(4):
        assert chisquare(np.delete(table[letter], letter)).pvalue > 1e-3


def test_slices_tell_letters_by_their_hops():
    task = KHop(num_train=200, num_validation=4, num_test=4)
    batch = task.splits["train"][:200]
    slices = task.slices(batch)
    is_letter = batch.targets != task.tokens.index("~")
    assert slices["letter"].bool().equal(is_letter)
    assert (slices["k"][~is_letter] == 5).all()
    expected = batch.inputs[:, :1].expand_as(batch.targets)
    assert slices["k"][is_letter].equal(expected[is_letter])
    # With no hop, every letter is its own answer.
    none = batch.inputs[:, 0] == 0
    assert batch.targets[none].equal(batch.inputs[none, 1:])


def test_an_example_can_be_checked_by_eye():
    task = KHop(num_train=10)
    read, answer_line = task.show().splitlines()
    blank, *answers = answer_line.removeprefix("answers: ").split()
    assert blank == "_"
    assert answers == list(khop.answers(read.split(), task).values())


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.khop.{}",
        {
            "negative_hops": lambda: KHop(max_hops=-1),
            "short": lambda: KHop(length=3),
        },
    )
