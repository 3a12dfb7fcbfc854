"""MAD's tasks: only what can be known is asked, in every split; and its own layout on request."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from attnlab.dataset.base import random_stream
from attnlab.dataset.compression import Compression
from attnlab.dataset.fuzzy_recall import FuzzyRecall
from attnlab.dataset.in_context_recall import InContextRecall, commonest
from attnlab.dataset.memorization import Memorization
from attnlab.dataset.selective_copying import SelectiveCopying
from attnlab.split import IGNORE
from tests.dataset.drawing import FEW, SEEDS, holds, rows
from tests.refused_calls import refused_calls

noisy = partial(InContextRecall, vocab_size=32, noise_share=0.2)
RECALLS = {
    "in_context_recall": InContextRecall,
    "noisy_recall": noisy,
    "fuzzy_recall": FuzzyRecall,
}


@FEW
@given(half=st.integers(2, 9), pairs=st.integers(2, 12), share=st.floats(0, 0.99), seed=SEEDS)
def test_recall_amid_noise_or_none_is_right_at_every_size(half, pairs, share, seed):
    holds("in_context_recall", InContextRecall(vocab_size=2 * half, length=2 * pairs), seed)
    sizes = {"vocab_size": 16 + 2 * half, "length": 2 * pairs}
    holds("noisy_recall", noisy(noise_share=share, **sizes), seed)


@FEW
@given(motif=st.integers(1, 4), spare=st.integers(0, 5), room=st.integers(0, 20), seed=SEEDS)
def test_fuzzy_recall_is_right_at_every_size(motif, spare, room, seed):
    sizes = {"vocab_size": 2 * motif + 1 + spare, "length": 4 * motif + room, "motif": motif}
    holds("fuzzy_recall", FuzzyRecall(**sizes), seed)
    for split in ("train", "validation", "test"):
        holds("fuzzy_recall_mad", FuzzyRecall(compat=True, **sizes), seed, split)


@FEW
@given(vocab=st.integers(5, 20), pairs=st.integers(1, 9), seed=SEEDS)
def test_memorization_is_right_at_every_size(vocab, pairs, seed):
    holds("memorization", Memorization(vocab_size=vocab, length=2 * pairs, seed=seed % 7), seed)


@FEW
@given(vocab=st.integers(4, 40), count=st.integers(1, 9), room=st.integers(0, 20), seed=SEEDS)
def test_copying_and_compression_are_right_at_every_size(vocab, count, room, seed):
    sizes = {"vocab_size": vocab, "length": 2 * count + 2 + room, "num_tokens": count}
    holds("selective_copying", SelectiveCopying(**sizes), seed)
    holds("selective_copying_mad", SelectiveCopying(compat=True, **sizes), seed)
    holds("compression", Compression(vocab_size=vocab, length=count + 1), seed)


@pytest.mark.parametrize("name", RECALLS)
def test_compat_trains_on_every_next_token_and_tests_on_what_can_be_known(name):
    ours, theirs = RECALLS[name](), RECALLS[name](compat=True)
    drawn = rows(theirs)
    assert np.array_equal(drawn.targets[:, :-1], drawn.inputs[:, 1:])
    assert (drawn.targets[:, -1] != IGNORE).all()
    for split in ("validation", "test"):
        asked = rows(theirs, split=split).targets != IGNORE
        assert asked[:, -1].all()
        assert asked.mean() < 0.6
        if name != "fuzzy_recall":
            one, other = rows(ours, split=split), rows(theirs, split=split)
            assert np.array_equal(one.inputs, other.inputs)
            assert np.array_equal(one.targets, other.targets)


@pytest.mark.parametrize("name", RECALLS)
def test_all_splits_are_drawn_alike(name):
    # Not so in MAD, whose test has the longest keys alone.
    task = RECALLS[name]()
    drawn = [
        task.draw_examples(random_stream(5, "train", 0), 256, split) for split in ("train", "test")
    ]
    for one, other in zip(*drawn, strict=True):
        assert one is None or np.array_equal(one, other)


def test_noise_is_never_asked_and_as_frequent_as_stated():
    for share in (0.2, 0.8):
        drawn = rows(noisy(noise_share=share), 4096)
        noise = drawn.inputs >= 16
        assert (drawn.targets[noise] == IGNORE).all()
        assert (drawn.targets < 16).all()
        # One of the 63 pairs before the question is never noise.
        expected = share * 62 * 2 / 127
        assert noise.mean() == pytest.approx(expected, abs=0.004)
        assert chisquare(np.bincount(drawn.inputs[noise] - 16, minlength=16)).pvalue > 1e-3
    assert (rows(noisy(noise_share=0.99)).inputs[:, :-1] < 16).any(axis=1).all()


def test_noise_is_fresh_in_every_example():
    drawn = rows(noisy(noise_share=0.8), 64).inputs
    assert (drawn[1:] == drawn[:-1]).mean() < 0.1


def test_keys_and_values_are_uniform_and_the_last_key_is_one_of_those_shown():
    drawn = rows(InContextRecall(length=8), 8192)
    assert chisquare(np.bincount(drawn.inputs[:, 0], minlength=8)).pvalue > 1e-3
    assert chisquare(np.bincount(drawn.inputs[:, 1] - 8, minlength=8)).pvalue > 1e-3
    keys, last = drawn.inputs[:, 0:-1:2], drawn.inputs[:, -1:]
    distinct = (np.diff(np.sort(keys, axis=1), axis=1) > 0).all(axis=1)
    place = (keys == last)[distinct].argmax(axis=1)
    assert chisquare(np.bincount(place, minlength=3)).pvalue > 1e-3


def test_fuzzy_motifs_are_uniform_in_length_and_have_different_tokens():
    task = FuzzyRecall(length=64)
    drawn = rows(task, 8192)
    key = drawn.inputs < 7
    first = np.argmin(key, axis=1)
    assert chisquare(np.bincount(first, minlength=4)[1:]).pvalue > 1e-3
    pairs = drawn.inputs[first == 2, :2]
    counts = np.bincount(pairs[:, 0] * 7 + pairs[:, 1], minlength=49).reshape(7, 7)
    assert not counts.diagonal().any()
    assert chisquare(counts[~np.eye(7, dtype=bool)]).pvalue > 1e-3


def test_slices_tell_how_long_a_fuzzy_key_is():
    task = FuzzyRecall(num_train=50, num_validation=10, num_test=10)
    batch = task.splits["train"][:]
    size = task.slices(batch)["key_size"]
    for inputs, targets, sizes in zip(
        *(t.tolist() for t in (batch.inputs, batch.targets, size)), strict=True
    ):
        for at in (at for at, target in enumerate(targets) if target != IGNORE):
            start = at
            while inputs[start] >= 7:
                start -= 1
            run = 0
            while start - run >= 0 and inputs[start - run] < 7:
                run += 1
            assert sizes[at] == run


@pytest.mark.parametrize("kind", [InContextRecall, noisy])
def test_distances_lead_back_to_the_last_value(kind):
    task = kind(num_train=50, num_validation=10, num_test=10)
    batch = task.splits["train"][:]
    distance = task.slices(batch)["distance"]
    asked = batch.targets != IGNORE
    assert torch.equal(distance > 0, asked)
    at = torch.arange(batch.inputs.shape[1]) - distance
    values = batch.inputs.gather(1, at)
    assert torch.equal(values[asked], batch.targets[asked])
    key = batch.inputs.gather(1, (at - 1).clamp(min=0))
    assert torch.equal(key[asked], batch.inputs[asked])


def test_the_commonest_value_scores_what_chance_says():
    assert commonest(2) == pytest.approx(0.75)
    draw = np.random.Generator(np.random.Philox(1)).integers(8, size=(40_000, 8))
    most = (draw[:, :, None] == np.arange(8)).sum(axis=1).max(axis=1)
    assert commonest(8) == pytest.approx(most.mean() / 8, abs=0.003)
    assert commonest(128) == pytest.approx(0.0342, abs=1e-3)


def test_facts_follow_the_data_seed_alone_and_hold_in_all_splits():
    one = Memorization(num_train=300, num_validation=50, num_test=50, seed=1)
    facts: dict[int, int] = {}
    for split in one.splits.values():
        batch = split[:]
        for key, value in zip(
            batch.inputs[:, 0::2].flatten(), batch.targets.flatten(), strict=True
        ):
            assert facts.setdefault(int(key), int(value)) == int(value)
    assert len(set(facts.values())) == len(facts) == 127
    assert np.array_equal(one.facts, Memorization(num_train=7, seed=1).facts)
    assert (one.facts == Memorization(seed=2).facts).mean() < 0.1


def test_copied_tokens_stand_in_any_places_alike_but_in_compat():
    task = SelectiveCopying(length=10, num_tokens=2)
    drawn = rows(task, 8192)
    pairs = np.nonzero(drawn.inputs[:, :7] < 14)[1].reshape(-1, 2)
    counts = np.bincount(pairs[:, 0] * 7 + pairs[:, 1], minlength=49).reshape(7, 7)
    assert chisquare(counts[np.triu_indices(7, 1)]).pvalue > 1e-3
    drawn = rows(SelectiveCopying(length=10, num_tokens=2, compat=True), 8192)
    first = np.argmax(drawn.inputs < 14, axis=1)
    assert (drawn.inputs[:, 6] < 14).all()
    # Five blanks, each before the first or the second token.
    law = np.array([1, 5, 10, 10, 5, 1]) / 32
    assert chisquare(np.bincount(first, minlength=6), 8192 * law).pvalue > 1e-3


def test_slices_lead_back_to_the_token_that_is_copied():
    task = SelectiveCopying(num_train=50, num_validation=10, num_test=10)
    batch = task.splits["train"][:]
    slices = task.slices(batch)
    assert batch.at is not None
    assert torch.equal(batch.inputs.gather(1, batch.at - slices["distance"]), batch.targets)
    assert slices["place"].tolist() == [list(range(16))] * 50


def test_impossible_sizes_are_refused():
    refused_calls(
        "dataset.mad.{}",
        {
            "odd_vocab": lambda: InContextRecall(vocab_size=15),
            "small_vocab": lambda: InContextRecall(vocab_size=2),
            "odd_length": lambda: InContextRecall(length=127),
            "short": lambda: InContextRecall(length=2),
            "noisy_small_vocab": lambda: noisy(vocab_size=18),
            "noisy_short": lambda: noisy(length=2),
            "all_noise": lambda: noisy(noise_share=1.0),
            "negative_noise": lambda: noisy(noise_share=-0.1),
            "fuzzy_long_motif": lambda: FuzzyRecall(motif=8),
            "fuzzy_no_motif": lambda: FuzzyRecall(motif=0),
            "fuzzy_no_vocab": lambda: FuzzyRecall(vocab_size=0),
            "fuzzy_short": lambda: FuzzyRecall(length=11),
            "fuzzy_too_many_keys": lambda: FuzzyRecall(vocab_size=8192, motif=6),
            "memorization_small_vocab": lambda: Memorization(vocab_size=4),
            "memorization_odd_length": lambda: Memorization(length=31),
            "copying_small_vocab": lambda: SelectiveCopying(vocab_size=3),
            "copying_nothing": lambda: SelectiveCopying(num_tokens=0),
            "copying_short": lambda: SelectiveCopying(length=33),
            "compression_small_vocab": lambda: Compression(vocab_size=2),
            "compression_short": lambda: Compression(length=1),
        },
    )


@pytest.mark.parametrize("vocab_size", [4, 16])
def test_guessing_a_copied_letter_hits_one_of_the_letters(vocab_size):
    """Of the tokens two are no letters: the blank, and what asks for the copy."""
    data = SelectiveCopying(vocab_size=vocab_size, num_train=50, num_validation=5, num_test=5)
    letters = set(data.tokens) - {"_", "=>"}
    assert len(letters) == vocab_size - 2
    assert data.chance == pytest.approx(1 / len(letters), rel=1e-15)
