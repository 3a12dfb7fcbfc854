"""MQAR is the paper's task, its loop made fast, and zoology's on request."""

import itertools

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from attnlab.dataset.base import random_stream
from attnlab.dataset.mqar import MQAR
from attnlab.draw import draw_distinct_rows
from bench.loop_mqar import loop_mqar
from tests.refused_calls import refused_calls

# V, L, pairs: the check, zoology's basic preset, the largest of the paper, and as dense as can be.
SHAPES = [(256, 64, 8), (256, 64, 4), (8192, 512, 64), (18, 32, 8)]


def rows(task: MQAR, n: int) -> tuple[np.ndarray, ...]:
    parts = [
        task.draw_examples(random_stream(3, "train", block), 1024, "train")[:3]
        for block in range(-(-n // 1024))
    ]
    return tuple(np.concatenate(arrays)[:n] for arrays in zip(*parts, strict=True))


def same(counts: np.ndarray) -> float:
    """Give the chance of rows so different if all had one distribution."""
    return float(np.asarray(chi2_contingency(counts)[1]))


@pytest.mark.parametrize(
    ("vocab_size", "length", "pairs", "random_filler"),
    [*((*shape, False) for shape in SHAPES), (*SHAPES[0], True)],
)
def test_each_key_is_asked_once_and_answered_with_its_value(
    vocab_size, length, pairs, random_filler
):
    task = MQAR(vocab_size=vocab_size, length=length, num_pairs=pairs, random_filler=random_filler)
    for inputs, targets, at in zip(*rows(task, 50), strict=True):
        keys, values = inputs[: 2 * pairs : 2], inputs[1 : 2 * pairs : 2]
        assert len(set(keys)) == len(set(values)) == pairs
        assert 1 <= keys.min() <= keys.max() < vocab_size / 2
        assert vocab_size / 2 <= values.min() <= values.max() < vocab_size
        value_of = dict(zip(keys, values, strict=True))
        assert sorted(inputs[at]) == sorted(keys)
        assert [value_of[key] for key in inputs[at]] == list(targets)
        assert (at >= 2 * pairs).all()
        assert (at % 2 == 0).all()
        if not random_filler:
            assert np.count_nonzero(inputs) == 3 * pairs


def test_random_filler_changes_the_filler_alone():
    plain, _, at = rows(MQAR(num_pairs=4), 1024)
    noisy, _, noisy_at = rows(MQAR(num_pairs=4, random_filler=True), 1024)
    assert np.array_equal(at, noisy_at)
    assert np.array_equal(noisy[plain > 0], plain[plain > 0])
    assert chisquare(np.bincount(noisy[plain == 0], minlength=256)).pvalue > 1e-3


def test_random_filler_hides_unlabelled_keys_as_in_zoology():
    task = MQAR(num_pairs=4, random_filler=True)
    inputs, _, at = rows(task, 8192)
    asked = np.zeros(inputs.shape, bool)
    np.put_along_axis(asked, at, True, axis=1)
    rest = np.where(asked, 0, inputs)[:, 8:]
    copied = (rest[:, :, None] == inputs[:, None, 0:8:2]).any(axis=(1, 2)).mean()
    # 52 places of filler, each one of 4 keys with chance 4/256.
    expected = 1 - (1 - 4 / 256) ** 52
    assert expected == pytest.approx(0.56, abs=0.005)
    assert copied == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 8192) ** 0.5)


@pytest.mark.parametrize(
    ("length", "pairs", "published", "last"),
    [
        (64, 4, [0.251, 0.126, 0.085, 0.064], 0.0093),
        (512, 64, [0.167, 0.084, 0.056, 0.042], 0.0009),
    ],
)
def test_the_first_question_stands_where_the_power_law_puts_it(length, pairs, published, last):
    n, space = 10_000, (length - 2 * pairs) // 2
    slots = (rows(MQAR(length=length, num_pairs=pairs), n)[2][:, 0] - 2 * pairs) // 2
    law = 0.01 * np.arange(1, space + 1) ** (0.01 - 1)
    law /= law.sum()
    assert np.round(law[:4], 3).tolist() == pytest.approx(published, abs=1.1e-3)
    assert law[-1] == pytest.approx(last, abs=6e-5)
    assert chisquare(np.bincount(slots, minlength=space), n * law).pvalue > 1e-3


def test_distances_have_the_published_quantiles():
    tokens = rows(MQAR(num_pairs=4), 20_000)[2] - 8
    assert np.quantile(tokens, [0.1, 0.25, 0.5, 0.75, 0.9]).tolist() == [0, 2, 8, 24, 40]
    assert (tokens == 0).mean() == pytest.approx(0.179, abs=0.003)


def test_each_question_stands_where_the_loop_puts_it():
    n, length, pairs = 3000, 64, 4
    _, _, at = rows(MQAR(length=length, num_pairs=pairs), n)
    inputs, labels = loop_mqar(256, length, pairs, n, 0)
    for pair in range(pairs):
        key = inputs[:, 2 * pair]
        asked = (inputs == key[:, None]) & (labels >= 0)
        ours, theirs = (np.bincount(a, minlength=length) for a in (at[:, pair], asked.argmax(1)))
        counts = np.stack([ours, theirs])
        assert same(counts[:, counts.sum(0) > 0]) > 1e-3, pair


@pytest.mark.parametrize(("count", "high"), [(2, 8), (5, 6)])
def test_distinct_integers_are_uniform_over_their_orders(count, high):
    # The first is drawn with redraws, the second by ordering all the numbers.
    every = list(itertools.permutations(range(1, high), count))
    drawn = draw_distinct_rows(random_stream(0, "train", 0), 200 * len(every), count, 1, high)
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert orders.tolist() == sorted(map(list, every))
    assert chisquare(counts).pvalue > 1e-3


def test_keys_and_values_do_not_tell_each_other():
    inputs, _, _ = rows(MQAR(vocab_size=22, length=16, num_pairs=2), 20_000)
    table = np.zeros((22, 22))
    np.add.at(table, (inputs[:, 0], inputs[:, 1]), 1)
    assert same(table[1:11, 11:]) > 1e-3


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.mqar.{}",
        {
            "odd_vocab": lambda: MQAR(vocab_size=255),
            "odd_length": lambda: MQAR(length=63),
            "short": lambda: MQAR(num_pairs=17),
            "few_keys": lambda: MQAR(vocab_size=16, num_pairs=8),
            "no_pairs": lambda: MQAR(num_pairs=0),
        },
    )


def test_an_example_reads_as_the_paper_writes_it():
    task = MQAR(vocab_size=8, length=12, num_pairs=2, num_train=1, num_validation=1, num_test=1)
    shown = task.show("test")
    words = shown.splitlines()[0].split()
    assert [word[0] for word in words[:4]] == ["k", "v", "k", "v"]
    asked = {(words[i], words[i + 1]) for i in (0, 2)}
    assert {(line.split("'")[1], line.split(": ")[1]) for line in shown.splitlines()[1:]} == asked


def test_the_bytes_are_those_of_the_first_release():
    assert MQAR().data_hash.startswith("66a80f2b0e0ff1b0")
