"""The dense feed-forward network."""

from collections.abc import Callable
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses
from attnlab.ranges import Expansion, ShareBelowOne, ranged


@ranged
class MLP(FFN):
    """Widens each position, bends it, and narrows it (Vaswani et al. 2017, sec. 3.3).

    Bends by GELU in place of the paper's ReLU, unless `activation` says otherwise: relu, silu, or
    gelu_tanh, the approximation that GPT-2's code has (Hendrycks & Gimpel 2016, sec. 2), which is
    off by .0005 at most. d_ffn = expansion x d_model.
    """

    def __init__(
        self,
        d_model: int,
        *,
        expansion: Expansion = 4.0,
        activation: str = "gelu",
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        d_ffn = round(expansion * d_model)
        if d_ffn < 1:
            raise ValueError(f"expansion={expansion} of d_model={d_model} leaves no hidden unit")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} must be one of {', '.join(ACTIVATIONS)}")
        self.expand = nn.Linear(d_model, d_ffn, bias)
        self.contract = nn.Linear(d_ffn, d_model, bias)
        self.bend = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        return self.contract(self.dropout(self.bend(self.expand(x)))), {}


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
