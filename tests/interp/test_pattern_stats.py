"""What is said of a row is what its definition says: uniform, one-hot, causal, padded."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnlab.attend import Attend
from attnlab.interp.pattern_stats import (
    confidence,
    count_visible_keys,
    duplicate_keys,
    effective_keys,
    entropy,
    head_divergence,
    jensen_shannon,
    mean_distance,
    normalised_entropy,
    pattern_drift,
    successor_keys,
    weight_at_offset,
    weight_on_first_keys,
    weight_on_keys,
)
from tests.depth import examples

LENGTH = 6
AT = torch.arange(LENGTH)
VALID = torch.ones(1, LENGTH, dtype=torch.bool)


def uniform(length: int = LENGTH) -> torch.Tensor:
    return torch.full((1, 1, length, length), 1 / length)


def causal_uniform(length: int = LENGTH) -> torch.Tensor:
    return (torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None])[None, None]


def one_hot(keys: list[int], length: int = LENGTH) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(keys), length).float()[None, None]


def drawn(*shape: int) -> torch.Tensor:
    return (2 * torch.randn(*shape)).softmax(dim=-1)


def row(values: torch.Tensor) -> list[float]:
    assert values.dtype == torch.float32
    return values[0, 0].tolist()


def near(expected: list[float]) -> object:
    return pytest.approx(expected, abs=2e-6)


def test_a_uniform_pattern_knows_all_keys_and_none():
    pattern, nats = uniform(), entropy(uniform())
    assert row(nats) == near([math.log(6)] * 6)
    assert row(effective_keys(nats)) == near([6] * 6)
    assert row(normalised_entropy(nats, count_visible_keys(AT, VALID, LENGTH, False))) == near(
        [1] * 6
    )
    assert row(confidence(pattern)) == near([1 / 6] * 6)
    assert row(mean_distance(pattern, AT)) == near([15 / 6, 11 / 6, 9 / 6, 9 / 6, 11 / 6, 15 / 6])
    assert row(weight_at_offset(pattern, AT, -1)) == near([0, *[1 / 6] * 5])
    assert row(weight_at_offset(pattern, AT, 0)) == near([1 / 6] * 6)
    assert row(weight_at_offset(pattern, AT, 1)) == near([*[1 / 6] * 5, 0])
    assert row(weight_on_first_keys(pattern)) == near([1 / 6] * 6)
    assert row(weight_on_first_keys(pattern, 4)) == near([4 / 6] * 6)


def test_keys_of_other_documents_are_not_counted_as_visible():
    documents = torch.tensor([[0, 0, 0, 1, 1, 2]])
    assert count_visible_keys(AT, VALID, LENGTH, True, None, documents).tolist() == [
        [1, 2, 3, 1, 2, 1]
    ]
    assert count_visible_keys(AT, VALID, LENGTH, False, None, documents).tolist() == [
        [3, 3, 3, 2, 2, 1]
    ]
    assert count_visible_keys(AT[4:], VALID, 2, True, 1, documents).tolist() == [[1, 1]]


def test_a_one_hot_pattern_is_at_one_place():
    pattern = one_hot([0, 0, 1, 2, 3, 4])
    nats = entropy(pattern)
    assert row(nats) == near([0] * 6)
    assert row(effective_keys(nats)) == near([1] * 6)
    assert row(normalised_entropy(nats, count_visible_keys(AT, VALID, LENGTH, True))) == near(
        [0] * 6
    )
    assert row(confidence(pattern)) == near([1] * 6)
    assert row(mean_distance(pattern, AT)) == near([0, 1, 1, 1, 1, 1])
    assert row(weight_at_offset(pattern, AT, -1)) == near([0, 1, 1, 1, 1, 1])
    assert row(weight_at_offset(pattern, AT, 0)) == near([1, 0, 0, 0, 0, 0])
    assert row(weight_at_offset(pattern, AT, 1)) == near([0] * 6)
    assert row(weight_on_first_keys(pattern)) == near([1, 1, 0, 0, 0, 0])


def test_a_causal_uniform_pattern_is_even_over_what_it_sees():
    pattern, nats = causal_uniform(), entropy(causal_uniform())
    assert row(nats) == near([math.log(n) for n in range(1, 7)])
    assert row(effective_keys(nats)) == near([1, 2, 3, 4, 5, 6])
    assert row(normalised_entropy(nats, count_visible_keys(AT, VALID, LENGTH, True))) == near(
        [0, 1, 1, 1, 1, 1]
    )
    assert row(confidence(pattern)) == near([1 / n for n in range(1, 7)])
    assert row(mean_distance(pattern, AT)) == near([n / 2 for n in range(6)])
    assert row(weight_at_offset(pattern, AT, -1)) == near([0, *[1 / n for n in range(2, 7)]])
    assert row(weight_on_first_keys(pattern)) == near([1 / n for n in range(1, 7)])


def test_padding_is_no_key_to_see():
    valid = AT[None] < 4
    pattern = torch.where(valid[:, None, None], 1 / 4, 0.0).expand(1, 1, LENGTH, LENGTH)
    nats = entropy(pattern)
    assert row(effective_keys(nats)) == near([4] * 6)
    assert row(normalised_entropy(nats, count_visible_keys(AT, valid, LENGTH, False))) == near(
        [1] * 6
    )
    assert count_visible_keys(AT, valid, LENGTH, True)[0].tolist() == [1, 2, 3, 4, 4, 4]
    assert row(weight_at_offset(pattern, AT, 1))[:4] == near([1 / 4, 1 / 4, 1 / 4, 0])
    assert count_visible_keys(None, valid, 2, False)[0].tolist() == [4, 4]


def test_as_many_keys_are_visible_as_attention_shows():
    valid = AT[None] < torch.tensor([[6], [4]])
    query = torch.zeros(2, 1, LENGTH, 4)
    for causal, window in product((True, False), (None, 1, 3, 9)):
        mask = Attend(causal, 0.0, 1, window).mask(query, LENGTH, None, valid)
        attended = (mask == 0).expand(2, 1, LENGTH, LENGTH).sum(dim=-1)[:, 0]
        counted = count_visible_keys(AT, valid, LENGTH, causal, window)
        assert torch.equal(counted[valid], attended[valid]), (causal, window)


def detector(kind: str, tokens: list[int]) -> np.ndarray:
    """Give the pattern that TransformerLens' `head_detector` looks for, from its definition.

    "previous": ones right below the diagonal. "duplicate": ones where two tokens are the same, off
    the diagonal, later ones cut off. "induction": that, moved one key to the right.
    """
    size = len(tokens)
    if kind == "previous":
        return np.eye(size, k=-1)
    same = np.array([[float(one == other) for one in tokens] for other in tokens])
    same[np.arange(size), np.arange(size)] = 0
    same = np.tril(same)
    if kind == "duplicate":
        return same
    moved = np.zeros_like(same)
    moved[:, 1:] = same[:, :-1]
    return np.tril(moved)


def test_the_scores_of_known_heads_are_those_of_transformerlens():
    tokens = torch.randint(3, (5, 12))
    scores = torch.randn(5, 3, 12, 12).masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
    pattern, at = scores.softmax(dim=-1), torch.arange(12)
    ours = {
        "previous": weight_at_offset(pattern, at, -1),
        "duplicate": weight_on_keys(pattern, duplicate_keys(tokens, at)),
        "induction": weight_on_keys(pattern, successor_keys(tokens, at)),
    }
    for kind, values in ours.items():
        for sequence in range(5):
            wanted = detector(kind, tokens[sequence].tolist())
            for head in range(3):
                weights = pattern[sequence, head].double().numpy()
                theirs = (weights * wanted).sum() / weights.sum()
                assert float(values[sequence, head].mean()) == pytest.approx(theirs, abs=1e-6)


def test_the_second_time_round_an_induction_head_has_it_all():
    tokens = torch.tensor([[3, 1, 2, 3, 1, 2]])
    pattern = one_hot([0, 0, 0, 1, 2, 3])
    assert row(weight_on_keys(pattern, successor_keys(tokens, AT))) == near([0, 0, 0, 1, 1, 1])
    assert row(weight_on_keys(pattern, duplicate_keys(tokens, AT))) == near([0, 0, 0, 0, 0, 0])
    assert successor_keys(tokens, AT).any(dim=-1)[0].tolist() == [False] * 3 + [True] * 3
    assert row(weight_on_keys(one_hot([0, 0, 0, 0, 1, 2]), duplicate_keys(tokens, AT))) == near(
        [0, 0, 0, 1, 1, 1]
    )
    # A token that stood right before itself is followed by itself.
    assert successor_keys(torch.tensor([[7, 7]]), torch.arange(2))[0].tolist() == [[0, 0], [0, 1]]


def test_divergence_is_nothing_between_equals_and_log_2_between_strangers():
    pattern = drawn(2, 3, 5, 7)
    assert (jensen_shannon(pattern, pattern) == 0).all()
    one, other = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.5])
    assert float(jensen_shannon(one, other)) == pytest.approx(math.log(2))
    # m = (3/4, 1/4): (log 4/3 + (log 2/3 + log 2) / 2) / 2.
    assert float(jensen_shannon(torch.tensor([1.0, 0]), torch.tensor([0.5, 0.5]))) == pytest.approx(
        (math.log(4 / 3) + (math.log(2 / 3) + math.log(2)) / 2) / 2
    )
    assert row(pattern_drift(one_hot([0] * 6), one_hot([0, 1, 2, 3, 4, 5]))) == near(
        [0, 1, 1, 1, 1, 1]
    )


@examples(30)
@given(seed=st.integers(0, 10_000), keys=st.integers(1, 9), sharp=st.sampled_from([0.1, 1, 9, 99]))
def test_divergence_is_that_of_the_definition(seed, keys, sharp):
    draw = torch.Generator().manual_seed(seed)
    one, other = (sharp * torch.randn(2, keys, generator=draw)).softmax(dim=-1)
    p, q = one.double().numpy(), other.double().numpy()
    wanted = sum(
        a * math.log(2 * a / (a + b)) / 2
        for a, b in [*zip(p, q, strict=True), *zip(q, p, strict=True)]
        if a > 0
    )
    found = float(jensen_shannon(one, other))
    assert found == pytest.approx(wanted, abs=1e-6)
    assert found == pytest.approx(float(jensen_shannon(other, one)), abs=1e-7)
    assert 0 <= found <= math.log(2) + 1e-6


def test_a_small_drift_is_not_lost_in_rounding():
    before = uniform(2)
    after = before + torch.tensor([1e-4, -1e-4])
    # For p = 1/2 + e against 1/2 the divergence is e^2 / 2 to the second order.
    wanted = math.sqrt(1e-8 / 2 / math.log(2))
    assert row(pattern_drift(before, after)) == pytest.approx([wanted] * 2, rel=1e-2)


def test_heads_are_compared_each_with_each():
    pattern, other = drawn(2, 3, 5, 7), drawn(2, 4, 5, 7)
    own, across = head_divergence(pattern), head_divergence(pattern, other)
    for head in range(3):
        for second in range(3):
            expected = jensen_shannon(pattern[:, head], pattern[:, second])
            torch.testing.assert_close(own[:, head, second], expected)
        for second in range(4):
            expected = jensen_shannon(pattern[:, head], other[:, second])
            torch.testing.assert_close(across[:, head, second], expected)


@examples(25)
@given(data=st.data(), length=st.integers(1, 9), seed=st.integers(0, 999))
def test_some_rows_say_what_they_say_among_all(data, length, seed):
    draw = torch.Generator().manual_seed(seed)
    pattern = torch.randn(2, 2, length, length, generator=draw).softmax(dim=-1)
    tokens = torch.randint(3, (2, length), generator=draw)
    valid = torch.arange(length) < torch.tensor([[length], [max(1, length - 2)]])
    at = torch.tensor(data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=9)))

    def said(rows: torch.Tensor, at: torch.Tensor) -> list[torch.Tensor]:
        seen = count_visible_keys(at, valid, len(at), True, 3)
        nats = entropy(rows)
        return [
            *(nats, normalised_entropy(nats, seen), confidence(rows), mean_distance(rows, at)),
            *(weight_at_offset(rows, at, offset) for offset in (-1, 0, 1)),
            *(
                weight_on_first_keys(rows),
                weight_on_keys(rows, duplicate_keys(tokens, at)),
                weight_on_keys(rows, successor_keys(tokens, at)),
            ),
        ]

    everything = said(pattern, torch.arange(length))
    for part, whole in zip(said(pattern[:, :, at], at), everything, strict=True):
        torch.testing.assert_close(part, whole[:, :, at], atol=1e-6, rtol=0)


def test_half_precision_is_measured_in_full():
    pattern = drawn(1, 2, 6, 6)
    for half in (pattern.bfloat16(), pattern.half()):
        for function in (entropy, confidence, weight_on_first_keys):
            assert torch.equal(function(half), function(half.float()))
        assert torch.equal(mean_distance(half, AT), mean_distance(half.float(), AT))
        assert torch.equal(
            pattern_drift(half, half.flip(3)), pattern_drift(half.float(), half.float().flip(3))
        )
