"""Token embeddings: nearest neighbours, principal components, and their drift in training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.errors import RequestError

TOKENS_AT_ONCE = 1024
"""Tokens whose cosines with all others are in memory at once."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vector that a model reads for each token."""

    tokens: Sequence[str]
    vectors: Float[Tensor, "token d_model"]

    def neighbours(self, token: str, count: int = 10) -> list[tuple[str, float]]:
        """Return the `count` tokens of highest cosine similarity, with their cosines.

        Raises RequestError for an unknown token, naming tokens that are spelled alike.
        """
        if token not in self.tokens:
            similar_tokens = ", ".join(get_close_matches(token, self.tokens, n=3)) or "none"
            raise RequestError(f"there is no token {token!r} (near: {similar_tokens})")
        if count < 1:
            raise RequestError(f"count={count} must be at least 1")
        tokens, token_index = list(self.tokens), self.tokens.index(token)
        cosines = F.cosine_similarity(self.vectors, self.vectors[token_index], dim=1)
        by_cosine = cosines.argsort(descending=True, stable=True).tolist()
        nearest = [neighbour for neighbour in by_cosine if neighbour != token_index][:count]
        return [(tokens[neighbour], float(cosines[neighbour])) for neighbour in nearest]


def principal_components(
    vectors: Float[Tensor, "token d_model"], count: int = 2
) -> tuple[Float[Tensor, "token component"], Float[Tensor, " component"]]:
    """Return the first principal components of each vector (Pearson 1901), and their shares.

    A share is the part of the variance about the mean along a component. The sign of a component is
    such that its largest weight is positive. Raises ValueError for fewer vectors or dimensions than
    components.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    directions, shares = _principal_directions(centred, count)
    return centred @ directions, shares


def align(
    vectors: Float[Tensor, "_token _d_model"], reference: Float[Tensor, "_token _d_model"]
) -> tuple[Float[Tensor, "_token _d_model"], float]:
    """Return vectors rotated or reflected about their mean to fit the reference, and the disparity.

    The orthogonal Procrustes problem (Schönemann 1966), without scaling. The vectors are float64
    and about the reference's mean. The disparity is the squared distance that remains, over the
    squared lengths of both about their means, from 0 (a rotated copy) to 1 (nothing in common).
    Raises ValueError for unequal shapes.
    """
    if vectors.shape != reference.shape:
        raise ValueError(
            f"vectors of shape {tuple(vectors.shape)} cannot be aligned to "
            f"{tuple(reference.shape)}; give the same tokens in the same order"
        )
    rotated, reference_mean = _rotate_to_reference(vectors, reference)
    centred_reference = reference.double() - reference_mean
    squared_lengths = rotated.square().sum() + centred_reference.square().sum()
    disparity = (rotated - centred_reference).square().sum() / squared_lengths.clamp(
        min=torch.finfo(squared_lengths.dtype).tiny
    )
    return rotated + reference_mean, float(disparity)


def align_history(
    vectors_by_step: Sequence[Float[Tensor, "_token _d_model"]],
) -> Float[Tensor, "step token 2"]:
    """Compute the coordinates of each token at each step in one plane: its path over training.

    Every step is aligned to the last one and projected on the first two principal components of the
    last one (`principal_components` returns the shares of these axes). Raises ValueError for no
    steps, and for steps with unequal tokens.
    """
    if not vectors_by_step:
        raise ValueError("no steps were given; a history needs the vectors of at least one")
    last_vectors = vectors_by_step[-1].double()
    centred_last = last_vectors - last_vectors.mean(dim=0)
    directions, _ = _principal_directions(centred_last, 2)
    centred_vectors = []
    for vectors in vectors_by_step[:-1]:
        aligned_vectors, _ = align(vectors, last_vectors)
        centred_vectors.append(aligned_vectors - last_vectors.mean(dim=0))
    return torch.stack([*centred_vectors, centred_last]) @ directions


def vector_drift(
    vectors: Float[Tensor, "_token _d_model"], reference: Float[Tensor, "_token _d_model"]
) -> float:
    """Return the mean over tokens of 1 - cosine to the reference, after `align`, about its mean.

    As Hamilton et al. (2016, sec. 3.2) measure how words change; from 0 (only a rotation, a shift
    or other lengths) to 2. Raises ValueError for unequal shapes (`align`).
    """
    aligned, _ = align(vectors, reference)
    reference_mean = reference.double().mean(dim=0)
    cosines = F.cosine_similarity(
        aligned - reference_mean, reference.double() - reference_mean, dim=1
    )
    return float(1 - cosines.mean())


def neighbour_turnover(
    vectors: Float[Tensor, "_token _d_model"],
    reference: Float[Tensor, "_token _d_model"],
    count: int = 10,
) -> float:
    """Return the share of neighbours that a token does not keep, 0 to 1, as a mean over tokens.

    1 minus the Jaccard index of its `count` nearest tokens by cosine before and after, the measure
    of stability of Antoniak & Mimno (2018); Wendlandt et al. (2018) take the overlap. No alignment
    is needed, since a rotation changes no cosine. Raises ValueError for unequal numbers of tokens
    or too few tokens.
    """
    if len(vectors) != len(reference):
        raise ValueError(f"{len(vectors)} tokens are not the {len(reference)} of the reference")
    if not 1 <= count < len(vectors):
        raise ValueError(f"count={count} must be at least 1 and below the {len(vectors)} tokens")
    num_shared = torch.cat(
        [
            (
                rearrange(nearest, "t n -> t n 1") == rearrange(reference_nearest, "t n -> t 1 n")
            ).sum(dim=(1, 2))
            for nearest, reference_nearest in zip(
                _nearest_tokens_in_parts(vectors, count),
                _nearest_tokens_in_parts(reference, count),
                strict=True,
            )
        ]
    ).double()
    return float(1 - (num_shared / (2 * count - num_shared)).mean())


def _principal_directions(
    centred: Float[Tensor, "token d_model"], count: int
) -> tuple[Float[Tensor, "d_model component"], Float[Tensor, " component"]]:
    """Return the first principal directions of centred vectors, and their variance shares."""
    if min(centred.shape) < count:
        raise ValueError(f"{count} components need as many vectors and dimensions")
    _, singular_values, right_vectors = torch.linalg.svd(centred, full_matrices=False)
    largest_weights = right_vectors.gather(1, right_vectors.abs().argmax(dim=1, keepdim=True))
    shares = singular_values.square() / singular_values.square().sum().clamp(
        min=torch.finfo(singular_values.dtype).tiny
    )
    return rearrange(right_vectors * largest_weights.sign(), "c d -> d c")[:, :count], shares[
        :count
    ]


def _rotate_to_reference(
    vectors: Float[Tensor, "token d_model"], reference: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " d_model"]]:
    """Return the centred vectors, rotated to fit the reference, and the mean of the reference."""
    reference_mean = reference.double().mean(dim=0)
    centred = vectors.double() - vectors.double().mean(dim=0)
    left_vectors, _, right_vectors = torch.linalg.svd(
        centred.T @ (reference.double() - reference_mean)
    )
    return centred @ (left_vectors @ right_vectors), reference_mean


def _nearest_tokens_in_parts(
    vectors: Float[Tensor, "token d_model"], count: int
) -> Iterator[Int[Tensor, "part neighbour"]]:
    """Yield the `count` nearest tokens of each token, for `PART` tokens at a time."""
    unit_vectors = F.normalize(vectors.double(), dim=1)
    for tokens in torch.arange(len(unit_vectors), device=unit_vectors.device).split(TOKENS_AT_ONCE):
        cosines = unit_vectors[tokens] @ unit_vectors.T
        cosines.scatter_(1, rearrange(tokens, "t -> t 1"), -torch.inf)
        yield cosines.topk(count, dim=1).indices
