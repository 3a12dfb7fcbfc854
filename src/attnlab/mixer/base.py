"""What every mixer is, and what the attention mixers share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attend import Attend
from attnlab.position.base import Position

State = Any
"""What a mixer remembers of tokens that it has seen: tensors, batch first, made by `step`."""


class Mixer(nn.Module, ABC):
    """A layer that moves information between positions: (batch, seq, d_model) to the same shape.

    Wiring: `causal` is the objective's word on who may see whom, `layer` counts from 0, the lowest.

    How evidence finds who reads whom in it: a mixer that attends mixes with an `Attend`
    (`attnlab.attend`); one that is linear in its values shows its matrix to a `Mixing`
    (`attnlab.tap`), as `attnlab.recurrence.base.mix` does. Both state their number of heads, and
    may have any name. Any other mixer is traced by the gradients of its outputs.

    Initialisation, where a class has no row of its own (nn.Linear is the library's default):
        *norm.weight | 1
        *norm.bias | 0
        * | U(1/sqrt(fan_in))
    """

    one_way: ClassVar[bool] = False
    """Reads from left to right, whatever `causal` says; `arranged` sets a second one beside it."""
    heeds: ClassVar[frozenset[str]] = frozenset()
    """Which marks of a position scheme it asks for: "rotate", "bias"."""
    min_layers: int = 1
    """Fewer layers leave a part of what it was given unused."""

    def __init__(self, d_model: int, position: Position, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        # The model owns the scheme; a tuple keeps its parameters out of the mixer's own.
        self._position = (position,)

    @property
    def position(self) -> Position:
        return self._position[0]

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mix the whole sequence; positions that are not `valid` are padding and reach nobody."""

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        """Mix the token at position `at` with those before it, held in `state` (None at the start).

        In evaluation mode a causal mixer's steps give what its `forward` gives.
        """
        raise ValueError(f"{type(self).__name__} cannot run step by step")

    def state_size(self, length: int) -> int:
        """Count the numbers that `step` keeps for one sequence after `length` tokens."""
        raise ValueError(f"{type(self).__name__} cannot run step by step")

    def read(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"],
        valid: Bool[Tensor, "batch source"] | None = None,
        state: State = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], State]:
        """Let each position read another sequence (cross-attention), whose padding is not `valid`.

        The state holds what was made of `memory`, so that a decoder makes it once.
        """
        raise ValueError(f"{type(self).__name__} mixes one sequence and cannot read another")

    def require_read(self, knob: str) -> None:
        """Refuse to stand where another sequence is read, if it cannot."""
        if type(self).read is Mixer.read:
            raise ValueError(
                f"{knob}={type(self).__name__} mixes one sequence and cannot read another; use "
                "multihead"
            )


class BothWays(Mixer):
    """Two one-way mixers, the second on the sequence backwards (Schuster & Paliwal 1997).

    Their outputs are added. A padded sequence is read backwards from its own last token, and what
    passes the taps of `backwards` is in that order, which `mirrored` gives and undoes.
    """

    def __init__(self, forwards: Mixer, backwards: Mixer) -> None:
        super().__init__(0, forwards.position, causal=False)
        self.forwards, self.backwards = forwards, backwards

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        mirror = mirrored(x, valid)
        forwards = self.forwards(x, valid)
        return forwards + take(self.backwards(take(x, mirror), valid), mirror)


def arranged(
    mixer: Callable[..., Mixer], d_model: int, position: Position, causal: bool, layer: int
) -> Mixer:
    """Build a mixer; one that reads one way is built twice where a position may see all."""
    made = mixer(d_model, position, causal, layer)
    if causal or not made.one_way:
        return made
    return BothWays(made, mixer(d_model, position, causal, layer))


def mirrored(
    x: Float[Tensor, "batch seq width"], valid: Bool[Tensor, "batch seq"] | None
) -> Int[Tensor, "batch seq"]:
    """Index each sequence backwards from its last valid token; padding stays where it is."""
    at = torch.arange(x.shape[1], device=x.device)
    if valid is None:
        return repeat(at.flip(0), "s -> b s", b=len(x))
    return torch.where(valid, valid.sum(dim=1, keepdim=True) - 1 - at, at)


def take(
    x: Float[Tensor, "batch seq width"], index: Int[Tensor, "batch place"]
) -> Float[Tensor, "batch place width"]:
    """Take positions of each sequence, in an order of its own."""
    return x.gather(1, repeat(index, "b s -> b s w", w=x.shape[-1]))


class Attention(Mixer):
    """What the attention mixers share: how projected heads become one output or one step."""

    heeds = frozenset({"rotate", "bias"})
    output: nn.Linear
    patterns_per_head: ClassVar[int] = 1
    """How many patterns a head has in the taps."""

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        num_heads: int,
        dropout: float,
        d_rotated: int | None = None,
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model, self.num_heads = d_model, num_heads
        position.serve(num_heads, d_rotated or d_model // num_heads)
        self.attend = Attend(causal, dropout, num_heads * self.patterns_per_head)

    @abstractmethod
    def ask(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        """Give the queries, (batch, head, seq, d_head), before any rotation."""

    @abstractmethod
    def tell(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        """Give keys and values, each (batch, head, seq, d_head), before any rotation."""

    def merge(
        self, heads: Float[Tensor, "batch head seq d_head"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Put the heads together and project them back."""
        return self.output(rearrange(heads, "b h s d -> b s (h d)"))

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give query, key and value of one sequence, rotated to their positions."""
        query, (key, value) = self.ask(x), self.tell(x)
        return self.position.rotate(query, at), self.position.rotate(key, at), value

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        """Mix the values of each head."""
        return self.attend(query, key, value, bias, valid)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        at = torch.arange(x.shape[1], device=x.device)
        # Padding comes last, where no earlier query sees it: unless somebody looks at the patterns,
        # a causal kernel needs no mask for it. What padding itself reads becomes 0 either way.
        shown = None if self.causal and not self.attend.heard else valid
        mixed = self.merge(self._mix(*self.project(x, at), at, shown))
        return mixed if valid is None else mixed.masked_fill(~rearrange(valid, "b s -> b s 1"), 0)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.causal:
            return super().step(x, at, state)
        query, key, value = self.project(x, torch.arange(at, at + 1, device=x.device))
        if state is not None:
            key, value = (torch.cat(pair, dim=-2) for pair in zip(state, (key, value), strict=True))
        seen = torch.arange(at + 1 - key.shape[-2], at + 1, device=x.device)
        return self.merge(self._mix(query, key, value, seen, None)), (key, value)

    def state_size(self, length: int) -> int:
        return 2 * length * self.d_model

    def read(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"],
        valid: Bool[Tensor, "batch source"] | None = None,
        state: State = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], State]:
        key, value = self.tell(memory) if state is None else state
        return self.merge(self.mix(self.ask(x), key, value, None, valid)), (key, value)

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, at: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Mix keys at the positions `at`, the last of which are those of the queries."""
        bias = self.position.bias(self.num_heads, at[-query.shape[-2] :], at, self.causal)
        return self.mix(query, key, value, bias, valid)


class Heads(Attention):
    """Attention in heads of width d_model / num_heads, which may share keys and values.

    `query_key_norm` gives queries and keys an RMS norm over each head, with a learned scale, before
    they are rotated (Dehghani et al. 2023, sec. 2, who take layer norms; Yang et al. 2025, sec. 2).
    """

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        num_heads: int,
        num_kv_heads: int,
        dropout: float,
        bias: bool,
        query_key_norm: bool,
    ) -> None:
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        if num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
        super().__init__(d_model, position, causal, num_heads, dropout)
        self.d_head = d_model // num_heads
        self.widths = (d_model, num_kv_heads * self.d_head, num_kv_heads * self.d_head)
        self.query_key_value = nn.Linear(d_model, sum(self.widths), bias)
        self.output = nn.Linear(d_model, d_model, bias)
        norm = RMSNorm if query_key_norm else nn.Identity
        self.query_norm, self.key_norm = norm(self.d_head), norm(self.d_head)

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Parted before the heads are: the gradients then meet in one copy instead of two.
        query, key, value = map(self._part, self.query_key_value(x).split(self.widths, dim=-1))
        query, key = self.query_norm(query), self.key_norm(key)
        return self.position.rotate(query, at), self.position.rotate(key, at), value

    def ask(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return self.query_norm(self._part(self._some(x, slice(self.d_model))))

    def tell(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        key, value = self._some(x, slice(self.d_model, None)).chunk(2, dim=-1)
        return self.key_norm(self._part(key)), self._part(value)

    def state_size(self, length: int) -> int:
        return length * sum(self.widths[1:])

    def _some(self, x: Tensor, rows: slice) -> Tensor:
        bias = self.query_key_value.bias
        return F.linear(x, self.query_key_value.weight[rows], None if bias is None else bias[rows])

    def _part(self, x: Tensor) -> Tensor:
        return rearrange(x, "b s (h d) -> b h s d", d=self.d_head)


class RMSNorm(nn.RMSNorm):
    """RMS norm (Zhang & Sennrich 2019, eq. 4), computed in the precision of its scale."""

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return super().forward(x.to(self.weight)).to(x)
