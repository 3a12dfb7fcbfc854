"""The blocks that a Transformer repeats: mixer, cross-attention and FFN on the residual stream."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.ffn.base import FFN, Losses
from attnlab.mixer.base import Mixer, State, build_mixer
from attnlab.mixer.multihead import MultiHead
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, ranged

Sublayer = Callable[[Tensor], tuple[Tensor, Any]]
"""Maps the stream to what is added to it, and to a state or losses beside that."""


@ranged
class Block(nn.Module, ABC):
    """Applies a mixer, then a feed-forward network; where there is a `memory`, reads it between.

    `cross` reads the memory, an encoder's output; a model without an encoder has none.
    `norm_bias=False` leaves the shift out of layer norms (RMS norms have none).
    """

    ffn_norms: ClassVar[bool] = True
    """Whether the feed-forward network has a norm of its own."""
    normalised: ClassVar[bool] = False
    """Whether the output of the block is normalised."""

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
        self.mixer = build_mixer(mixer, d_model, position, causal, layer)
        self.cross = self.cross_norm = None
        # Positions of two sequences cannot be compared, so cross-attention has no position scheme.
        self.make_cross = partial(cross, d_model, Position(d_model, 0), False, layer)
        if reads:
            self.cross, self.cross_norm = self.make_cross(), self.make_norm(d_model)
            self.cross.require_cross_attention("cross")
        self.ffn = ffn(d_model)
        if causal and self.ffn.routes_across_tokens:
            raise ValueError(
                f"{type(self.ffn).__name__} lets tokens compete, so that a later one decides what "
                "an earlier one gets; a causal model cannot have it: use moe"
            )
        # A feed-forward network without parameters (ffn=none) needs no norm with parameters.
        has_ffn_norm = self.ffn_norms and any(True for _ in self.ffn.parameters())
        self.ffn_norm = self.make_norm(d_model) if has_ffn_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        memory_valid: Bool[Tensor, "batch source"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        """Return the stream after this block, and the losses of its parts."""
        # A mixer that cannot keep documents apart has no parameter for them.
        masks = () if documents is None else (documents,)

        def read_memory(x: Tensor) -> tuple[Tensor, State]:
            assert self.cross is not None
            assert memory is not None
            return self.cross.cross_attend(x, memory, memory_valid)

        x, _, _, losses = self.run_sublayers(
            x,
            lambda x: (self.mixer(x, valid, *masks), None),
            read_memory,
            lambda x: self.ffn(x, valid),
        )
        return x, losses

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: Any = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        memory_valid: Bool[Tensor, "batch source"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], Any]:
        """Return the stream at one more position, and the state of mixer and cross-attention."""
        masks = () if documents is None else (documents,)
        mixer_state, read_state = (None, None) if state is None else state

        def read_memory(x: Tensor) -> tuple[Tensor, State]:
            assert self.cross is not None
            assert memory is not None
            return self.cross.cross_attend(x, memory, memory_valid, read_state)

        x, mixer_state, read_state, _ = self.run_sublayers(
            x,
            lambda x: self.mixer.step(x, at, mixer_state, *masks),
            read_memory,
            lambda x: self.ffn(x, None),
        )
        return x, (mixer_state, read_state)

    def state_size(self, length: int) -> int | None:
        """Count the numbers of the state after `length` tokens, with `length` tokens of memory.

        None where a mixer cannot run step by step.
        """
        mixers = [self.mixer] if self.cross is None else [self.mixer, self.cross]
        sizes = [mixer.state_size(length) for mixer in mixers]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @abstractmethod
    def run_sublayers(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        """Return the stream after the sublayers, the states of `mix` and `read`, and the losses."""


class PreNorm(Block):
    """Works on normalised copies, and adds the results to the stream (Xiong et al. 2020)."""

    def run_sublayers(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        from_mixer, mixer_state = mix(self.mixer_norm(x))
        x, read_state = x + self.dropout(from_mixer), None
        if self.cross_norm is not None:
            from_memory, read_state = read(self.cross_norm(x))
            x = x + self.dropout(from_memory)
        from_ffn, losses = work(self.ffn_norm(x))
        return x + self.dropout(from_ffn), mixer_state, read_state, losses


class PostNorm(Block):
    """Normalises the stream after each sublayer has been added (Vaswani et al. 2017, sec. 3.1)."""

    normalised = True

    def run_sublayers(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        from_mixer, mixer_state = mix(x)
        x, read_state = self.mixer_norm(x + self.dropout(from_mixer)), None
        if self.cross_norm is not None:
            from_memory, read_state = read(x)
            x = self.cross_norm(x + self.dropout(from_memory))
        from_ffn, losses = work(x)
        return self.ffn_norm(x + self.dropout(from_ffn)), mixer_state, read_state, losses


class Parallel(Block):
    """Adds mixer and network at once, both from one normalised copy (Wang & Komatsuzaki 2021).

    As in GPT-J and PaLM (Chowdhery et al. 2022, sec. 2).
    """

    ffn_norms = False

    def run_sublayers(
        self, x: Tensor, mix: Sublayer, read: Sublayer, work: Sublayer
    ) -> tuple[Tensor, State, State, Losses]:
        normed = self.mixer_norm(x)
        from_mixer, mixer_state = mix(normed)
        from_ffn, losses = work(normed)
        total, read_state = from_mixer + from_ffn, None
        if self.cross_norm is not None:
            from_memory, read_state = read(self.cross_norm(x))
            total = total + from_memory
        return x + self.dropout(total), mixer_state, read_state, losses


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layer": lambda d_model, bias: nn.LayerNorm(d_model, bias=bias),
    "rms": lambda d_model, bias: nn.RMSNorm(d_model),
}
