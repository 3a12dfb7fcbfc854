"""The interface of every feed-forward network."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Named scalars that training adds to the objective's loss, already weighted."""


class FFN(nn.Module, ABC):
    """A layer that works on each position alone, unless it `routes_across_tokens`.

    Initialisation (experts as nn.Linear, the library's default):
        * | U(1/sqrt(fan_in))
    """

    idle_parameters: int = 0
    """Parameters that one token does not use."""
    routes_across_tokens: ClassVar[bool] = False
    """Whether what a token gets depends on the other tokens, later ones among them."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        """Return the output at each position, and the losses that training must add."""
