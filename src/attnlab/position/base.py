"""How a model knows order. A scheme overrides a no-op method; no mixer asks which it holds.

Positions are passed in (`at`), so that one cached step and a whole sequence share one code path.
"""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn


class Position(nn.Module):
    """No position information, and the interface of every scheme that adds some."""

    marks: ClassVar[str | None] = None
    """The method that it overrides: "embed", "rotate" or "bias"; None if nothing is marked."""

    def __init__(self, d_model: int, max_length: int) -> None:
        super().__init__()

    def embed(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mark the token embeddings (learned, sinusoidal)."""
        return x

    def rotate(
        self, x: Float[Tensor, "batch head seq d_head"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch head seq d_head"]:
        """Mark the queries and the keys (rotary)."""
        return x

    def serve(self, num_heads: int, d_rotated: int) -> None:
        """Hear from each layer that asks, when it is built, of how many heads and which width."""

    def bias(
        self,
        num_heads: int,
        query_at: Int[Tensor, " query"],
        key_at: Int[Tensor, " key"],
        causal: bool,
    ) -> Float[Tensor, "head query key"] | None:
        """Add to the attention scores; None lets the fused kernels run without a mask."""
        return None
