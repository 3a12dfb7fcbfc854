"""The interface of position schemes: each overrides one of the no-op methods of `Position`.

Positions are passed in (`at`), so that one cached step and a whole sequence share one code path.
"""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn


class Position(nn.Module):
    """No position information, and the interface of every scheme that adds some."""

    signal: ClassVar[str | None] = None
    """The method that the scheme overrides: "embed", "rotate" or "bias"; None if it has none."""

    def __init__(self, d_model: int, max_length: int) -> None:
        super().__init__()

    def embed(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Return token embeddings with their positions added (learned, sinusoidal)."""
        return x

    def rotate(
        self, x: Float[Tensor, "batch head seq d_head"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch head seq d_head"]:
        """Return queries or keys rotated to their positions (rotary)."""
        return x

    def prepare_heads(self, num_heads: int, d_rotated: int) -> None:
        """Prepare for a layer of so many heads; each layer that uses the scheme calls it once."""

    def bias(
        self,
        num_heads: int,
        query_at: Int[Tensor, " query"],
        key_at: Int[Tensor, " key"],
        causal: bool,
    ) -> Float[Tensor, "head query key"] | None:
        """Return the bias of the attention scores; None lets fused kernels run without a mask."""
        return None
