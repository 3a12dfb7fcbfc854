"""Sliding-window self-attention."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnlab.attend import Attend
from attnlab.mixer.base import Heads, Mixer, State
from attnlab.padding import add_padding
from attnlab.position.base import Position
from attnlab.ranges import Count, ShareBelowOne, Width, ranged


@ranged
class SlidingWindow(Heads):
    """Lets each token see the tokens near it (Beltagy et al. 2020, sec. 3.1; Jiang et al. 2023).

        a_ts = softmax over t - window < s <= t of q_t . k_s / sqrt(d_head), in each head
        y_t = W_O (the heads' sum_s a_ts v_s, side by side)

    `window` is in tokens, the own one among them: a causal token sees itself and the window - 1
    before it, another one also as many after it. Sequences of more than two windows are cut into
    blocks, each of which meets its neighbours alone, so time and memory grow with length x window;
    who listens to the pattern gets the whole square. The state holds the last window.

    `num_kv_heads` shares keys and values as grouped-query attention does (null: one for each head).
    """

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        layer: int = 0,
        *,
        window: Count = 32,
        num_heads: Width = 4,
        num_kv_heads: Width | None = None,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
        query_key_norm: bool = False,
    ) -> None:
        shared = num_heads if num_kv_heads is None else num_kv_heads
        super().__init__(
            d_model, position, causal, num_heads, shared, dropout, bias, query_key_norm
        )
        self.attend = Attend(causal, dropout, num_heads, window)
        self.window = window
        # Keys that a block meets.
        self.reach = (2 if causal else 3) * window

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        mixed, (key, value) = super().step(x, at, state)
        return mixed, (key[..., -self.window :, :], value[..., -self.window :, :])

    def state_size(self, length: int) -> int:
        return super().state_size(min(length, self.window))

    read = Mixer.read

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, at: Tensor, valid: Tensor | None
    ) -> Tensor:
        whole = query.shape[-2] == key.shape[-2]
        if self.attend.heard or not whole or len(at) <= 2 * self.window:
            return super()._mix(query, key, value, at, valid)
        if self.attend.rows.heard:
            bias = self.position.bias(self.num_heads, at, at, self.causal)
            self.attend.show(query, key, bias, valid)
        return self._blockwise(query, key, value, at, valid)

    def _blockwise(
        self, query: Tensor, key: Tensor, value: Tensor, at: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Attend in blocks of one window, whose keys are their own and those of the neighbours."""
        batch, length, window = len(query), query.shape[-2], self.window
        num_blocks = -(-length // window)
        filled = num_blocks * window - length
        self._add_window_padding(query, value)
        before, after = window, filled + (0 if self.causal else window)
        query = F.pad(query, (0, 0, 0, filled))
        key, value = (
            rearrange(
                F.pad(part, (0, 0, before, after)).unfold(-2, self.reach, window),
                "b h n d k -> (b n) h k d",
            )
            for part in (key, value)
        )
        there = query.new_ones(batch, length, dtype=torch.bool) if valid is None else valid
        there = F.pad(there, (before, after)).unfold(-1, self.reach, window)
        # A block that reaches nothing but padding is padding itself, and its output is left out.
        there = rearrange(there | ~there.any(-1, keepdim=True), "b n k -> (b n) k")
        query = rearrange(query, "b h (n q) d -> (b n) h q d", n=num_blocks)
        biases = self._biases(at, num_blocks, batch)
        mixed = self.attend(query, key, value, biases, there, shown=False)
        return rearrange(mixed, "(b n) h q d -> b h (n q) d", b=batch)[..., :length, :]

    def _add_window_padding(self, query: Tensor, value: Tensor) -> None:
        """Count the padding of blocks that reach beyond the sequence."""
        (batch, heads, length, d_head), window = query.shape, self.window
        products = 0
        for begins in range(0, length, window):
            first, last = max(0, begins - window), min(length, begins - window + self.reach)
            products += window * self.reach - min(window, length - begins) * (last - first)
        add_padding(2 * batch * heads * products * (d_head + value.shape[-1]))

    def _biases(
        self, at: Tensor, num_blocks: int, batch: int
    ) -> Float[Tensor, "block head query key"] | None:
        biases = []
        for start in range(0, num_blocks * self.window, self.window):
            first = start - self.window
            near = torch.arange(first, first + self.reach, device=at.device)
            # What lies outside the sequence is hidden, but has to have a position.
            near = near.clamp(0, len(at) - 1)
            bias = self.position.bias(
                self.num_heads, near[self.window : 2 * self.window], near, self.causal
            )
            if bias is None:
                return None
            biases.append(bias)
        return repeat(torch.stack(biases), "n h q k -> (b n) h q k", b=batch)
