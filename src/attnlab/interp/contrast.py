"""Attention on contrast pairs ("twins"): two inputs that differ in a word and in their answer.

On a single input, a head may point right by habit. In its twin the right and the wrong place are
swapped, so a head with a fixed habit is right once, and only a head that reads is right twice.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class ContrastPlaces(NamedTuple):
    """The positions of the query and of its right and wrong key in each sequence."""

    query: Int[Tensor, " batch"]
    right: Int[Tensor, " batch"]
    wrong: Int[Tensor, " batch"]


class HeadAttention(NamedTuple):
    """The attention weight of the query on the right and on the wrong place."""

    right: Float[Tensor, "batch head"]
    wrong: Float[Tensor, "batch head"]

    @property
    def points_right(self) -> Bool[Tensor, "batch head"]:
        """Whether a head has strictly more weight on the right place."""
        return self.right > self.wrong


def attention_on_places(
    pattern: Float[Tensor, "batch head query key"], places: ContrastPlaces
) -> HeadAttention:
    """Return the weights of each sequence's query on its two places, in float32."""
    sequence_index = torch.arange(len(pattern), device=pattern.device)
    right, wrong = (
        pattern[sequence_index, :, places.query, key].float()
        for key in (places.right, places.wrong)
    )
    return HeadAttention(right, wrong)


def pointing_share(
    right: Float[Tensor, "batch head"], wrong: Float[Tensor, "batch head"]
) -> Float[Tensor, " head"]:
    """Compute the share of sequences in which a head has more weight on the right place, 0 to 1.

    The accuracy by which Clark et al. (2019, sec. 4.2) choose heads, between two candidates. In
    float64, as a share of a count. Raises ValueError for no sequence.
    """
    return _share_of_sequences(HeadAttention(right, wrong).points_right)


def twin_flip_share(
    attention: HeadAttention, twin_attention: HeadAttention
) -> Float[Tensor, " head"]:
    """Compute the share of twin pairs in which a head points right in both, 0 to 1, in float64.

    0 for a head that always attends to the same one of the two places, whose `pointer` is 1/2.
    Raises ValueError for no pair, and for unequal numbers of sequences.
    """
    if attention.right.shape != twin_attention.right.shape:
        raise ValueError(
            f"{tuple(attention.right.shape)} and {tuple(twin_attention.right.shape)} sequences "
            "and heads cannot be pairs"
        )
    return _share_of_sequences(attention.points_right & twin_attention.points_right)


def _share_of_sequences(points_right: Bool[Tensor, "batch head"]) -> Float[Tensor, " head"]:
    if not len(points_right):
        raise ValueError("no sequence was given; a share needs at least one")
    return points_right.double().mean(dim=0)
