"""Rotary positions."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.position.base import Position
from attnlab.ranges import Base, ranged


@ranged
class RoPE(Position):
    """Rotates pairs of channels by angles proportional to the position (Su et al. 2021, eq. 34)."""

    signal = "rotate"

    def __init__(self, d_model: int, max_length: int, *, base: Base = 10_000.0) -> None:
        super().__init__(d_model, max_length)
        self.d_model, self.base = d_model, base

    def prepare_heads(self, num_heads: int, d_rotated: int) -> None:
        _require_pairs(d_rotated)

    def rotate(
        self, x: Float[Tensor, "batch head seq d_head"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch head seq d_head"]:
        d_head = x.shape[-1]
        _require_pairs(d_head)
        # At least float32: in low precision, distant positions would get the same angle.
        dtype = torch.promote_types(x.dtype, torch.float32)
        channel = torch.arange(0, d_head, 2, device=x.device, dtype=dtype)
        angle = torch.outer(at.to(dtype), self.base ** (-channel / d_head))
        cos, sin = angle.cos().to(x), angle.sin().to(x)
        even, odd = x[..., 0::2], x[..., 1::2]
        rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
        return rearrange(rotated, "b h s pair two -> b h s (pair two)")


def _require_pairs(d_head: int) -> None:
    if d_head % 2:
        raise ValueError(
            f"RoPE turns pairs of channels, so the rotated width of a head, {d_head}, must be even"
        )
