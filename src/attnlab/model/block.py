"""The blocks that a Transformer repeats: how mixer and feed-forward network stand to the stream."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.ffn.base import FFN, Losses
from attnlab.mixer.base import Mixer, State, arranged
from attnlab.mixer.multihead import MultiHead
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, ranged

Sublayer = Callable[[Tensor], tuple[Tensor, Any]]
"""Maps normalised positions to what is added to the stream, and to what comes with it."""


@ranged
class Block(nn.Module, ABC):
    """Mixes positions, then works on each; where there is a `memory`, reads it in between.

    `cross` reads the memory, an encoder's output; a model without an encoder has none.
    `norm_bias=False` leaves the shift out of layer norms (RMS norms have none).
    """

    ffn_norms: ClassVar[bool] = True
    """Whether the feed-forward network has a norm of its own."""
    normalised: ClassVar[bool] = False
    """Whether the stream leaves the block normalised."""

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        mixer: Callable[..., Mixer],
        ffn: Callable[..., FFN],
        layer: int = 0,
        reads: bool = False,
        *,
        norm: str = "layer",
        norm_bias: bool = True,
        dropout: ShareBelowOne = 0.0,
        cross: Callable[..., Mixer] = MultiHead,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}")
        self.make_norm = partial(NORMS[norm], bias=norm_bias)
        self.mixer_norm = self.make_norm(d_model)
        self.mixer = arranged(mixer, d_model, position, causal, layer)
        self.cross = self.cross_norm = None
        # Two sequences have no common positions, so nothing marks them here.
        self.make_cross = partial(cross, d_model, Position(d_model, 0), False, layer)
        if reads:
            self.cross, self.cross_norm = self.make_cross(), self.make_norm(d_model)
            self.cross.require_read("cross")
        self.ffn = ffn(d_model)
        if causal and self.ffn.competes:
            raise ValueError(
                f"{type(self.ffn).__name__} lets tokens compete, so that a later one decides what "
                "an earlier one gets; a causal model cannot have it: use moe"
            )
        # A layer that learns nothing (ffn=none) has no use for a norm that learns.
        learns = self.ffn_norms and any(True for _ in self.ffn.parameters())
        self.ffn_norm = self.make_norm(d_model) if learns else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        memory_valid: Bool[Tensor, "batch source"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        """Give the stream after this block, and the losses of its parts."""

        def read(x: Tensor) -> tuple[Tensor, State]:
            assert self.cross is not None
            assert memory is not None
            return self.cross.read(x, memory, memory_valid)

        x, _, _, losses = self.through(
            x, lambda x: (self.mixer(x, valid), None), read, lambda x: self.ffn(x, valid)
        )
        return x, losses

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: Any = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        memory_valid: Bool[Tensor, "batch source"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], Any]:
        """Give the stream after one more position, and what the block remembers."""
        mixed, read = (None, None) if state is None else state

        def reads(x: Tensor) -> tuple[Tensor, State]:
            assert self.cross is not None
            assert memory is not None
            return self.cross.read(x, memory, memory_valid, read)

        x, mixed, read, _ = self.through(
            x, lambda x: self.mixer.step(x, at, mixed), reads, lambda x: self.ffn(x, None)
        )
        return x, (mixed, read)

    def state_size(self, length: int) -> int:
        """Count the numbers of the state after `length` tokens, and as many of the memory."""
        return self.mixer.state_size(length) + (self.cross.state_size(length) if self.cross else 0)

    @abstractmethod
    def through(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        """Lead the stream through the sublayers; give it, and what came with each."""


class PreNorm(Block):
    """Works on normalised copies, and adds the results to the stream (Xiong et al. 2020)."""

    def through(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        mixed, seen = mix(self.mixer_norm(x))
        x, known = x + self.dropout(mixed), None
        if self.cross_norm is not None:
            found, known = read(self.cross_norm(x))
            x = x + self.dropout(found)
        worked, losses = work(self.ffn_norm(x))
        return x + self.dropout(worked), seen, known, losses


class PostNorm(Block):
    """Normalises the stream after each sublayer has been added (Vaswani et al. 2017, sec. 3.1)."""

    normalised = True

    def through(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        mixed, seen = mix(x)
        x, known = self.mixer_norm(x + self.dropout(mixed)), None
        if self.cross_norm is not None:
            found, known = read(x)
            x = self.cross_norm(x + self.dropout(found))
        worked, losses = work(x)
        return self.ffn_norm(x + self.dropout(worked)), seen, known, losses


class Parallel(Block):
    """Adds mixer and network at once, both from one normalised copy (Wang & Komatsuzaki 2021).

    As in GPT-J and PaLM (Chowdhery et al. 2022, sec. 2).
    """

    ffn_norms = False

    def through(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        normed = self.mixer_norm(x)
        mixed, seen = mix(normed)
        worked, losses = work(normed)
        total, known = mixed + worked, None
        if self.cross_norm is not None:
            found, known = read(self.cross_norm(x))
            total = total + found
        return x + self.dropout(total), seen, known, losses


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layer": lambda d_model, bias: nn.LayerNorm(d_model, bias=bias),
    "rms": lambda d_model, bias: nn.RMSNorm(d_model),
}
