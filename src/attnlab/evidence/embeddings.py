"""Which tokens a model holds alike: the vectors of its vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnlab.errors import RequestError


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
    if min(vectors.shape) < count:
        raise ValueError(f"{count} components need as many vectors and dimensions")
    left, singular, right = torch.linalg.svd(vectors.double() - vectors.double().mean(dim=0), False)
    largest = right.gather(1, right.abs().argmax(dim=1, keepdim=True))
    places = left * singular * largest.sign()[:, 0]
    shares = singular.square() / singular.square().sum().clamp(min=torch.finfo(singular.dtype).tiny)
    return places[:, :count], shares[:count]
