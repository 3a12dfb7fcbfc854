"""Sinusoidal positions."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.position.base import Position
from attnlab.ranges import Base, NotNegative, ranged


@ranged
class Sinusoidal(Position):
    """Adds sines and cosines of the position, wave by wave slower (Vaswani et al. 2017, sec. 3.5).

    Any position has its own, beyond the longest sequence too. Their waves have amplitude 1 beside
    token vectors that sec. 3.4 scales to variance 1; our token vectors start from N(0, .08), so the
    same ratio is an `amplitude` of .08.
    """

    signal = "embed"

    def __init__(
        self, d_model: int, max_length: int, *, base: Base = 10_000.0, amplitude: NotNegative = 0.08
    ) -> None:
        super().__init__(d_model, max_length)
        self.base, self.amplitude = base, amplitude

    def embed(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq d_model"]:
        d_model = x.shape[-1]
        # At least float32: in low precision, distant positions would get the same angle.
        dtype = torch.promote_types(x.dtype, torch.float32)
        channel = torch.arange(0, d_model, 2, device=x.device, dtype=dtype)
        angle = torch.outer(at.to(dtype), self.base ** (-channel / d_model))
        waves = rearrange([angle.sin(), angle.cos()], "two s pair -> s (pair two)")
        return x + self.amplitude * waves[:, :d_model].to(x)
