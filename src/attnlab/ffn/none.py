"""No feed-forward network."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.ffn.base import FFN, Losses


class NoFFN(FFN):
    """Adds nothing, so that a block is its mixer alone (the attention-only models of zoology)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        return torch.zeros_like(x), {}
