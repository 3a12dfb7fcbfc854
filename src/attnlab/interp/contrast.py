"""Where heads look in twins: two inputs that differ in a word, and ask for the other answer.

What one head does with one input may be habit. In a twin the right place and the wrong one are
swapped, so that a habit is right once, and only a head that reads is right twice.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Places(NamedTuple):
    """Where the words that matter stand in each sequence."""

    query: Int[Tensor, " batch"]
    right: Int[Tensor, " batch"]
    wrong: Int[Tensor, " batch"]


class HeadAttention(NamedTuple):
    """The attention that the query pays to the right and to the wrong place."""

    right: Float[Tensor, "batch head"]
    wrong: Float[Tensor, "batch head"]

    @property
    def points(self) -> Bool[Tensor, "batch head"]:
        """Whether a head pays more to the right place; as much is not more."""
        return self.right > self.wrong


def to_places(pattern: Float[Tensor, "batch head query key"], places: Places) -> HeadAttention:
    """Read from a pattern what the query of each sequence pays to its two places, in float32."""
    batch = torch.arange(len(pattern), device=pattern.device)
    right, wrong = (
        pattern[batch, :, places.query, key].float() for key in (places.right, places.wrong)
    )
    return HeadAttention(right, wrong)


def pointer(
    right: Float[Tensor, "batch head"], wrong: Float[Tensor, "batch head"]
) -> Float[Tensor, " head"]:
    """Give the share of sequences in which a head pays more to the right place, 0 to 1.

    The accuracy by which Clark et al. (2019, sec. 4.2) choose heads, between two candidates. A
    share of a count, and so in float64. Raises ValueError for no sequence.
    """
    return _share(HeadAttention(right, wrong).points)


def twin_flip(one: HeadAttention, other: HeadAttention) -> Float[Tensor, " head"]:
    """Give the share of twin pairs in which a head points right in both, 0 to 1, in float64.

    0 for a head that always looks at one of the places, whose `pointer` is 1/2. Raises ValueError
    for no pair, or where the two are not as many.
    """
    if one.right.shape != other.right.shape:
        raise ValueError(
            f"{tuple(one.right.shape)} and {tuple(other.right.shape)} sequences and heads cannot "
            "be pairs"
        )
    return _share(one.points & other.points)


def _share(points: Bool[Tensor, "batch head"]) -> Float[Tensor, " head"]:
    if not len(points):
        raise ValueError("no sequence was given; a share needs at least one")
    return points.double().mean(dim=0)
