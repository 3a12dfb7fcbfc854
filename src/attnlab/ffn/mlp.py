"""The dense feed-forward network."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses


class MLP(FFN):
    """Widens each position, bends it by GELU, and narrows it (Vaswani et al. 2017, sec. 3.3).

    GELU in place of the paper's ReLU, as in GPT-2. d_ffn = expansion x d_model.
    """

    def __init__(
        self, d_model: int, *, expansion: float = 4.0, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        d_ffn = int(expansion * d_model)
        if d_ffn < 1:
            raise ValueError(f"expansion={expansion} of d_model={d_model} leaves no hidden unit")
        self.expand = nn.Linear(d_model, d_ffn, bias)
        self.contract = nn.Linear(d_ffn, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        return self.contract(self.dropout(F.gelu(self.expand(x)))), {}
