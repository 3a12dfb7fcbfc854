"""The block that a Transformer repeats."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.ffn.base import FFN, Losses
from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position


class PreNorm(nn.Module):
    """Mixes positions, then works on each, on normalised copies added back (Xiong et al. 2020).

    `norm_bias=False` leaves the shift out of layer norms (RMS norms have none).
    """

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        mixer: Callable[..., Mixer],
        ffn: Callable[..., FFN],
        *,
        norm: str = "layer",
        norm_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}")
        self.mixer_norm, self.mixer = (
            NORMS[norm](d_model, norm_bias),
            mixer(d_model, position, causal),
        )
        self.ffn = ffn(d_model)
        # A layer that learns nothing (ffn=none) has no use for a norm that learns.
        learns = any(True for _ in self.ffn.parameters())
        self.ffn_norm = NORMS[norm](d_model, norm_bias) if learns else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        x = x + self.dropout(self.mixer(self.mixer_norm(x), valid))
        return self._work(x, valid)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], Any]:
        mixed, state = self.mixer.step(self.mixer_norm(x), at, state)
        return self._work(x + self.dropout(mixed), None)[0], state

    def _work(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Losses]:
        worked, losses = self.ffn(self.ffn_norm(x), valid)
        return x + self.dropout(worked), losses


NORMS: dict[str, Callable[[int, bool], nn.Module]] = {
    "layer": lambda d_model, bias: nn.LayerNorm(d_model, bias=bias),
    "rms": lambda d_model, bias: nn.RMSNorm(d_model),
}
