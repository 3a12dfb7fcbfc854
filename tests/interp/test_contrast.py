"""Twins tell a head that reads from one that has a habit."""

import torch

from attnlab.interp.contrast import (
    ContrastPlaces,
    HeadAttention,
    attention_on_places,
    pointing_share,
    twin_flip_share,
)
from tests.prose import refuses


def places(query: list[int], right: list[int], wrong: list[int]) -> ContrastPlaces:
    return ContrastPlaces(*map(torch.tensor, (query, right, wrong)))


def test_a_look_is_the_weight_at_the_query_of_each_sequence():
    pattern = torch.randn(3, 2, 5, 5).softmax(dim=-1)
    found = attention_on_places(pattern, places([4, 2, 3], [0, 1, 0], [1, 0, 2]))
    for sequence, (query, right, wrong) in enumerate([(4, 0, 1), (2, 1, 0), (3, 0, 2)]):
        for head in range(2):
            assert found.right[sequence, head] == pattern[sequence, head, query, right]
            assert found.wrong[sequence, head] == pattern[sequence, head, query, wrong]
    assert (
        attention_on_places(pattern.bfloat16(), places([4] * 3, [0] * 3, [1] * 3)).right.dtype
        == torch.float32
    )


def test_a_habit_points_right_in_half_of_all_twins_and_never_in_both():
    # Head 0 looks at place 0 always, head 1 at what the last word means, head 2 at both alike.
    one, other = torch.zeros(2, 6, 3, 3, 3)
    one[:, 0, 2, 0] = other[:, 0, 2, 0] = 1
    one[:, 1, 2, 0], other[:, 1, 2, 1] = 1, 1
    one[:, 2, 2, :2] = other[:, 2, 2, :2] = 0.5
    first = attention_on_places(one, places([2] * 6, [0] * 6, [1] * 6))
    second = attention_on_places(other, places([2] * 6, [1] * 6, [0] * 6))
    both = HeadAttention(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    assert pointing_share(*both).tolist() == [0.5, 1, 0]
    assert twin_flip_share(first, second).tolist() == [0, 1, 0]


def test_shares_are_counts():
    right, wrong = torch.tensor([[0.3], [0.2], [0.5]]), torch.tensor([[0.2], [0.2], [0.6]])
    assert float(pointing_share(right, wrong)) == 1 / 3
    mirror = HeadAttention(wrong, right)
    assert float(twin_flip_share(HeadAttention(right, wrong), mirror)) == 0
    assert float(twin_flip_share(mirror, mirror)) == 1 / 3


def test_nothing_has_no_share():
    none = torch.zeros(0, 2)
    with refuses(ValueError, "evidence.twins.none"):
        pointing_share(none, none)
    with refuses(ValueError, "evidence.twins.no_pairs"):
        twin_flip_share(
            HeadAttention(none, none), HeadAttention(torch.zeros(1, 2), torch.zeros(1, 2))
        )
