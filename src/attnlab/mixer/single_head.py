"""Single-head self-attention."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnlab.mixer.base import Attention
from attnlab.position.base import Position


class SingleHead(Attention):
    """Self-attention with one query, key and value per token (Vaswani et al. 2017, sec. 3.2.1).

    Each token asks with its query, is found by its key, and gives its value. Our width of all three
    is `d_model`, so this is multi-head attention with one head.
    """

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        *,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, position, causal, dropout)
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)

    def project(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.query(x), self.key(x), self.value(x)
        return query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)

    def merge(
        self, heads: Float[Tensor, "batch 1 seq d_model"]
    ) -> Float[Tensor, "batch seq d_model"]:
        return self.output(rearrange(heads, "b 1 s d -> b s d"))
