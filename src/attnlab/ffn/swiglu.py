"""The gated feed-forward network."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses
from attnlab.ranges import Expansion, ShareBelowOne, ranged


@ranged
class SwiGLU(FFN):
    """Lets a second projection through a SiLU gate, and narrows it (Shazeer 2020, eq. 6).

    `expand`, `gate` and `contract` are the paper's V, W and W2. d_ffn is the multiple of 8 nearest
    to expansion x d_model; at 8/3 the three matrices are as large as the two of a four times wider
    network (sec. 3.1).
    """

    def __init__(
        self,
        d_model: int,
        *,
        expansion: Expansion = 8 / 3,
        dropout: ShareBelowOne = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        d_ffn = 8 * round(expansion * d_model / 8)
        if d_ffn < 8:
            raise ValueError(
                f"expansion={expansion} of d_model={d_model} leaves no hidden unit: it is rounded "
                "to a multiple of 8"
            )
        self.expand = nn.Linear(d_model, d_ffn, bias)
        self.gate = nn.Linear(d_model, d_ffn, bias)
        self.contract = nn.Linear(d_ffn, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        hidden = F.silu(self.gate(x)) * self.expand(x)
        return self.contract(self.dropout(hidden)), {}
