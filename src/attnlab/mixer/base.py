"""What every mixer is, and the scaled dot-product that the attention mixers share."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.position.base import Position
from attnlab.tap import Tap

State = Any
"""What a mixer remembers of the tokens it has seen: tensors, made by `step` itself."""


class Mixer(nn.Module, ABC):
    """A layer that moves information between positions: (batch, seq, d_model) to the same shape.

    `causal` is the objective's word on who may see whom; a mixer that can only do one of the two
    raises ValueError for the other.
    """

    def __init__(self, d_model: int, position: Position, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        # The model owns the scheme. A tuple keeps it out of the mixer's own modules, so that its
        # parameters are listed and saved once.
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


class Attend(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), fused unless somebody looks.

    The taps `scores` (before the softmax, future and padding at -inf) and `pattern` (after it, each
    row sums to 1) exist on the explicit path, which runs only when one of them is heard, or where
    it is the faster one. Both paths agree within 1e-5 in float32. In bfloat16 the explicit one
    rounds scores and pattern: its output is off by .3 % of its root mean square for scores of
    variance 1, by .8 % for 16, and a row sums to 1 within .003 (fused: .2 %).
    """

    def __init__(self, causal: bool, dropout: float) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout
        self.scores, self.pattern = Tap(), Tap()

    def forward(
        self,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch head key d_head"],
        value: Float[Tensor, "batch head key d_head"],
        bias: Float[Tensor, "head query key"] | None = None,
        valid: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch head query d_head"]:
        """Mix the values; `query` stands for the last positions of `key`."""
        # On a CPU the fused kernel is slow in bfloat16 (a step of 2 layers, 64 x 64 tokens took 2.4
        # times as long), and in float32 for short rows of narrow heads (1.1 times, on two threads).
        short = key.shape[-2] <= 64 and query.shape[-1] <= 32
        slow = query.device.type == "cpu" and (query.dtype is torch.bfloat16 or short)
        explicit = self.scores.heard or self.pattern.heard or slow
        return (self._explicit if explicit else self._fused)(query, key, value, bias, valid)

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        whole = query.shape[-2] == key.shape[-2]
        if bias is None and valid is None and (whole or not self.causal):
            return F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=self.causal
            )
        mask = self._visible(query, key, valid)
        if bias is not None:
            mask = bias.to(query) if mask is None else bias.to(query).masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

    def _explicit(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        batch, num_queries, num_keys = len(query), query.shape[-2], key.shape[-2]
        future = query.new_full((1, num_queries, num_keys), -torch.inf if self.causal else 0.0)
        query, key, value = (
            rearrange(part, "b h s d -> (b h) s d") for part in (query, key, value)
        )
        # Scale and mask ride on the product; each alone would go through all the scores again.
        scores = torch.baddbmm(
            future.triu(1 + num_keys - num_queries),
            query,
            rearrange(key, "n k d -> n d k"),
            alpha=query.shape[-1] ** -0.5,
        )
        scores = rearrange(scores, "(b h) q k -> b h q k", b=batch)
        if bias is not None:
            scores = scores + bias.to(scores)
        if valid is not None:
            scores = scores.masked_fill(~rearrange(valid, "b k -> b 1 1 k"), -torch.inf)
        pattern = self.pattern(self.scores(scores).softmax(dim=-1))
        pattern = F.dropout(pattern, self.dropout, self.training)
        mixed = rearrange(pattern, "b h q k -> (b h) q k") @ value
        return rearrange(mixed, "(b h) q d -> b h q d", b=batch)

    def _visible(
        self, query: Tensor, key: Tensor, valid: Tensor | None
    ) -> Bool[Tensor, "#batch #head #query key"] | None:
        visible = None if valid is None else rearrange(valid, "b k -> b 1 1 k")
        if self.causal and query.shape[-2] > 1:
            num_queries, num_keys = query.shape[-2], key.shape[-2]
            past = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
            past = rearrange(past.tril(num_keys - num_queries), "q k -> 1 1 q k")
            visible = past if visible is None else past & visible
        return visible


class Attention(Mixer):
    """What the attention mixers share: how projected heads become one output or one step."""

    def __init__(self, d_model: int, position: Position, causal: bool, dropout: float) -> None:
        super().__init__(d_model, position, causal)
        self.d_model = d_model
        self.attend = Attend(causal, dropout)

    @abstractmethod
    def project(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor, Tensor]:
        """Give query, key and value, each (batch, head, seq, d_head), before any rotation."""

    @abstractmethod
    def merge(
        self, heads: Float[Tensor, "batch head seq d_head"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Put the heads together and project them back."""

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        at = torch.arange(x.shape[1], device=x.device)
        query, key, value = self.project(x)
        query, key = self.position.rotate(query, at), self.position.rotate(key, at)
        return self.merge(self._mix(query, key, value, at, at, valid))

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.causal:
            return super().step(x, at, state)
        now = torch.tensor([at], device=x.device)
        query, key, value = self.project(x)
        query, key = self.position.rotate(query, now), self.position.rotate(key, now)
        if state is not None:
            key, value = (torch.cat(pair, dim=-2) for pair in zip(state, (key, value), strict=True))
        seen = torch.arange(key.shape[-2], device=x.device)
        return self.merge(self._mix(query, key, value, now, seen, None)), (key, value)

    def state_size(self, length: int) -> int:
        return 2 * length * self.d_model

    def _mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_at: Int[Tensor, " query"],
        key_at: Int[Tensor, " key"],
        valid: Tensor | None,
    ) -> Tensor:
        bias = self.position.bias(query.shape[1], query_at, key_at)
        return self.attend(query, key, value, bias, valid)
