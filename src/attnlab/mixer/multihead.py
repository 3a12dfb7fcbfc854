"""Multi-head self-attention."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnlab.mixer.base import Attention
from attnlab.position.base import Position


class MultiHead(Attention):
    """Attends in parallel heads of width d_model / num_heads (Vaswani et al. 2017, sec. 3.2.2)."""

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        *,
        num_heads: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, position, causal, dropout)
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)

    def project(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor, Tensor]:
        # Parted before the heads are: the gradients then meet in one copy instead of two.
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        return query, key, value

    def merge(
        self, heads: Float[Tensor, "batch head seq d_head"]
    ) -> Float[Tensor, "batch seq d_model"]:
        return self.output(rearrange(heads, "b h s d -> b s (h d)"))
