"""Attention with linear biases."""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.position.base import Position


class ALiBi(Position):
    """Penalises distance linearly, each head with its own slope (Press et al. 2022, sec. 3).

    Head i of n falls by 2^(-8i/n) a token. Where n is no power of two, the heads beyond the largest
    one below it take every other slope of twice as many heads, as in the authors' code. Where a
    token sees both ways, both count alike.
    """

    signal = "bias"

    def bias(
        self,
        num_heads: int,
        query_at: Int[Tensor, " query"],
        key_at: Int[Tensor, " key"],
        causal: bool,
    ) -> Float[Tensor, "head query key"]:
        distance = (rearrange(query_at, "q -> q 1") - key_at).abs()
        return -rearrange(slopes(num_heads, key_at.device), "h -> h 1 1") * distance


def slopes(num_heads: int, device: torch.device) -> Float[Tensor, " head"]:
    """Return by how much a token of distance lowers the scores of each head."""
    power = 2 ** int(math.log2(num_heads))
    regular = (torch.arange(power, device=device) + 1) * (8 / power)
    interleaved = (2 * torch.arange(num_heads - power, device=device) + 1) * (4 / power)
    return torch.cat((regular, interleaved)).neg().exp2()
