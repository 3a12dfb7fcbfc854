"""Sliding-window self-attention."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.attend import Attend
from attnlab.mixer.base import GroupedAttention, Mixer, State, hide_other_documents
from attnlab.padding import add_padding
from attnlab.position.base import Position
from attnlab.ranges import Count, ShareBelowOne, Width, ranged


@ranged
class SlidingWindow(GroupedAttention):
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
        position: Position | None = None,
        causal: bool = True,
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
        # Number of keys that the queries of a block may see.
        self.reach = (2 if causal else 3) * window

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: State = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        mixed, (key, value) = super().step(x, at, state, documents)
        return mixed, (key[..., -self.window :, :], value[..., -self.window :, :])

    def state_size(self, length: int) -> int:
        return super().state_size(min(length, self.window))

    cross_attend = Mixer.cross_attend

    def _mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions: Tensor,
        valid: Tensor | None,
        documents: Tensor | None = None,
    ) -> Tensor:
        is_self_attention = query.shape[-2] == key.shape[-2]
        if self.attend.has_listeners or not is_self_attention or len(positions) <= 2 * self.window:
            return super()._mix(query, key, value, positions, valid, documents)
        if self.attend.rows.has_listeners:
            bias = self.position.bias(self.num_heads, positions, positions, self.causal)
            if documents is not None:
                bias = hide_other_documents(bias, query, documents, documents)
            self.attend.pass_rows(query, key, bias, valid)
        return self._mix_in_blocks(query, key, value, positions, valid, documents)

    def _mix_in_blocks(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions: Tensor,
        valid: Tensor | None,
        documents: Tensor | None,
    ) -> Tensor:
        """Mix in blocks of `window` queries, with the keys of the block and of its neighbours."""
        batch, length, window = len(query), query.shape[-2], self.window
        num_blocks = -(-length // window)
        num_filled = num_blocks * window - length
        self._add_window_padding(query, value)
        pad_before, pad_after = window, num_filled + (0 if self.causal else window)
        query = F.pad(query, (0, 0, 0, num_filled))
        key, value = (
            rearrange(
                F.pad(part, (0, 0, pad_before, pad_after)).unfold(-2, self.reach, window),
                "b h n d k -> (b n) h k d",
            )
            for part in (key, value)
        )
        block_valid = query.new_ones(batch, length, dtype=torch.bool) if valid is None else valid
        block_valid = F.pad(block_valid, (pad_before, pad_after)).unfold(-1, self.reach, window)
        # A block whose keys are all padding holds only padding; its output is discarded.
        block_valid = rearrange(
            block_valid | ~block_valid.any(-1, keepdim=True), "b n k -> (b n) k"
        )
        query = rearrange(query, "b h (n q) d -> (b n) h q d", n=num_blocks)
        biases = self._block_biases(positions, num_blocks, batch)
        if documents is not None:
            # Queries beyond the end count as of the last document, so that each sees some key.
            last = num_filled + (0 if self.causal else window)
            padded = torch.cat((documents, documents[:, -1:].expand(-1, last)), dim=1)
            padded = F.pad(padded, (pad_before, 0), value=-1)
            blocks = rearrange(padded.unfold(-1, self.reach, window), "b n k -> (b n) k")
            biases = hide_other_documents(biases, query, blocks[:, window : 2 * window], blocks)
        mixed = self.attend(query, key, value, biases, block_valid, passes_rows=False)
        return rearrange(mixed, "(b n) h q d -> b h (n q) d", b=batch)[..., :length, :]

    def _add_window_padding(self, query: Tensor, value: Tensor) -> None:
        """Count the FLOPs of those keys and queries of the blocks that lie beyond the sequence."""
        (batch, heads, length, d_head), window = query.shape, self.window
        products = 0
        for start in range(0, length, window):
            first_key, end_key = max(0, start - window), min(length, start - window + self.reach)
            products += window * self.reach - min(window, length - start) * (end_key - first_key)
        add_padding(2 * batch * heads * products * (d_head + value.shape[-1]))

    def _block_biases(
        self, positions: Tensor, num_blocks: int, batch: int
    ) -> Float[Tensor, "block head query key"] | None:
        """Return the position biases of every block of every sequence; None without biases."""
        biases = []
        for start in range(0, num_blocks * self.window, self.window):
            first_key = start - self.window
            key_positions = torch.arange(first_key, first_key + self.reach, device=positions.device)
            # Keys outside of the sequence are masked, but need a position all the same.
            key_positions = key_positions.clamp(0, len(positions) - 1)
            bias = self.position.bias(
                self.num_heads,
                key_positions[self.window : 2 * self.window],
                key_positions,
                self.causal,
            )
            if bias is None:
                return None
            biases.append(bias)
        return repeat(torch.stack(biases), "n h q k -> (b n) h q k", b=batch)
