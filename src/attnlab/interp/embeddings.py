"""Which tokens a model holds alike, and how that comes about: the vectors of its vocabulary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.errors import RequestError

PART = 1024
"""Tokens whose cosines with all others are held at once."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vector that a model reads for each token."""

    tokens: Sequence[str]
    vectors: Float[Tensor, "token d_model"]

    def neighbours(self, token: str, count: int = 10) -> list[tuple[str, float]]:
        """Name the tokens whose vectors point most nearly the same way, with the cosines.

        Raises RequestError for what is no token, with near ones.
        """
        if token not in self.tokens:
            near = ", ".join(get_close_matches(token, self.tokens, n=3)) or "none"
            raise RequestError(f"there is no token {token!r} (near: {near})")
        if count < 1:
            raise RequestError(f"count={count} must be at least 1")
        names, at = list(self.tokens), self.tokens.index(token)
        cosines = F.cosine_similarity(self.vectors, self.vectors[at], dim=1)
        others = [n for n in cosines.argsort(descending=True, stable=True).tolist() if n != at]
        return [(names[n], float(cosines[n])) for n in others[:count]]


def principal(
    vectors: Float[Tensor, "token d_model"], count: int = 2
) -> tuple[Float[Tensor, "token component"], Float[Tensor, " component"]]:
    """Give the first principal components of each vector (Pearson 1901), and their shares.

    A share is that of the variance of all vectors about their mean. Each component points where its
    largest weight is positive. Raises ValueError for fewer vectors or dimensions than components.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    directions, shares = _directions(centred, count)
    return centred @ directions, shares


def align(
    vectors: Float[Tensor, "_token _d_model"], reference: Float[Tensor, "_token _d_model"]
) -> tuple[Float[Tensor, "_token _d_model"], float]:
    """Turn or mirror vectors about their mean until they are nearest to the reference's.

    The orthogonal Procrustes problem (Schönemann 1966), without scaling. Gives them in float64
    about the reference's mean, and the disparity: the squared distance that is left, over the
    squared lengths of both about their means, from 0 (a turned copy) to 1 (nothing in common).
    Raises ValueError for other shapes.
    """
    if vectors.shape != reference.shape:
        raise ValueError(
            f"vectors of shape {tuple(vectors.shape)} cannot be aligned to "
            f"{tuple(reference.shape)}; give the same tokens in the same order"
        )
    turned, middle = _turned(vectors, reference)
    fixed = reference.double() - middle
    lengths = turned.square().sum() + fixed.square().sum()
    left = (turned - fixed).square().sum() / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    return turned + middle, float(left)


def course(steps: Sequence[Float[Tensor, "_token _d_model"]]) -> Float[Tensor, "step token 2"]:
    """Place each token at each step in one plane, so that its path over training can be drawn.

    Every step is aligned to the last one, and shown on the first two principal components of that
    one (`principal`, whose shares are those of the axes). Raises ValueError for no steps, and for
    steps with other tokens.
    """
    if not steps:
        raise ValueError("no steps were given; a course needs the vectors of at least one")
    last = steps[-1].double()
    directions, _ = _directions(last - last.mean(dim=0), 2)
    aligned = (align(vectors, last)[0] - last.mean(dim=0) for vectors in steps[:-1])
    return torch.stack([*aligned, last - last.mean(dim=0)]) @ directions


def drift(
    vectors: Float[Tensor, "_token _d_model"], reference: Float[Tensor, "_token _d_model"]
) -> float:
    """Give the mean over tokens of 1 - cosine to the reference about its mean, once aligned.

    Hamilton et al. (2016, sec. 3.2) measure so how words change; from 0 (nothing but a turn, a
    shift or lengths) to 2. Raises ValueError for other shapes (`align`).
    """
    aligned, _ = align(vectors, reference)
    middle = reference.double().mean(dim=0)
    cosines = F.cosine_similarity(aligned - middle, reference.double() - middle, dim=1)
    return float(1 - cosines.mean())


def turnover(
    vectors: Float[Tensor, "_token _d_model"],
    reference: Float[Tensor, "_token _d_model"],
    count: int = 10,
) -> float:
    """Give the share of neighbours that a token does not keep, 0 to 1, as a mean over tokens.

    1 less the Jaccard index of its `count` nearest tokens by cosine before and after, as stability
    is measured by Antoniak & Mimno (2018); Wendlandt et al. (2018) take the overlap. No alignment
    is needed, since a turn moves no cosine. Raises ValueError for other shapes or too few tokens.
    """
    if len(vectors) != len(reference):
        raise ValueError(f"{len(vectors)} tokens are not the {len(reference)} of the reference")
    if not 1 <= count < len(vectors):
        raise ValueError(f"count={count} must be at least 1 and below the {len(vectors)} tokens")
    kept = torch.cat(
        [
            (rearrange(one, "t n -> t n 1") == rearrange(other, "t n -> t 1 n")).sum(dim=(1, 2))
            for one, other in zip(_nearest(vectors, count), _nearest(reference, count), strict=True)
        ]
    ).double()
    return float(1 - (kept / (2 * count - kept)).mean())


def _directions(
    centred: Float[Tensor, "token d_model"], count: int
) -> tuple[Float[Tensor, "d_model component"], Float[Tensor, " component"]]:
    if min(centred.shape) < count:
        raise ValueError(f"{count} components need as many vectors and dimensions")
    _, singular, right = torch.linalg.svd(centred, full_matrices=False)
    largest = right.gather(1, right.abs().argmax(dim=1, keepdim=True))
    shares = singular.square() / singular.square().sum().clamp(min=torch.finfo(singular.dtype).tiny)
    return rearrange(right * largest.sign(), "c d -> d c")[:, :count], shares[:count]


def _turned(
    vectors: Float[Tensor, "token d_model"], reference: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " d_model"]]:
    """Give vectors about their mean, turned to the reference, and the mean of that one."""
    middle = reference.double().mean(dim=0)
    centred = vectors.double() - vectors.double().mean(dim=0)
    left, _, right = torch.linalg.svd(centred.T @ (reference.double() - middle))
    return centred @ (left @ right), middle


def _nearest(
    vectors: Float[Tensor, "token d_model"], count: int
) -> Iterator[Int[Tensor, "part neighbour"]]:
    """Name the tokens nearest to each one, so many tokens at once."""
    unit = F.normalize(vectors.double(), dim=1)
    for at in torch.arange(len(unit), device=unit.device).split(PART):
        cosines = unit[at] @ unit.T
        cosines.scatter_(1, rearrange(at, "t -> t 1"), -torch.inf)
        yield cosines.topk(count, dim=1).indices
