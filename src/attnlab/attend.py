"""The scaled dot-product attention that the attention mixers share."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.padding import add_padding
from attnlab.ranges import ShareBelowOne, ranged
from attnlab.tap import Tap

QUERIES = 64
"""Number of queries whose rows pass the tap `rows` at once."""


@ranged
class Attend(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), fused unless it is recorded.

    The taps `scores` (before the softmax, future and padding at -inf) and `pattern` (after it, each
    row sums to 1) exist on the explicit path, which runs only when one of them has a listener, or
    where it is faster. Both paths agree within 1e-5 in float32. In bfloat16 the explicit path
    rounds scores and pattern: its output is off by .3 % of its root mean square for scores of
    variance 1, by .8 % for 16, and a row sums to 1 within .003 (fused: .2 %).

    The tap `rows` passes the same pattern a few queries at a time, from the first to the last, and
    does not change the path: statistics of a long sequence need no whole square. What it returns is
    not used.

    Keys, values and bias may have fewer heads than the queries; each then serves successive query
    heads. The queries are the last positions of `key`, or the middle ones if not causal. With
    a `window`, a query sees that many keys, its own the last (not causal: window - 1 on each side).

    A model's attention layers are found by their `Attend`: each module that holds one, under any
    name, is recorded, measured, ablated and drawn. `num_heads` is its number of patterns.
    """

    def __init__(
        self, causal: bool, dropout: ShareBelowOne, num_heads: int, window: int | None = None
    ) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout
        self.num_heads, self.window = num_heads, window
        self.scores, self.pattern, self.rows = Tap(), Tap(), Tap()

    @property
    def has_listeners(self) -> bool:
        """Whether scores or pattern have a listener."""
        return self.scores.has_listeners or self.pattern.has_listeners

    def forward(
        self,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch key_head key d_head"],
        value: Float[Tensor, "batch value_head key d_value"],
        bias: Float[Tensor, "*#batch bias_head query key"] | None = None,
        valid: Bool[Tensor, "batch key"] | None = None,
        *,
        passes_rows: bool = True,
    ) -> Float[Tensor, "batch head query d_value"]:
        """Return the values mixed by softmax(query . key).

        `passes_rows=False` passes nothing to `rows`: the caller has done so, with more than these
        keys.
        """
        if self.takes_explicit_path(query, key):
            return self._attend_explicitly(query, key, value, bias, valid, passes_rows)
        if self.rows.has_listeners and passes_rows:
            self.pass_rows(query, key, bias, valid)
        return self._attend_fused(query, key, value, bias, valid)

    def takes_explicit_path(self, query: Tensor, key: Tensor) -> bool:
        """Return whether the pattern is computed: if it has a listener, or where that is faster."""
        # On a CPU the fused kernel is slow in bfloat16 (a step of 2 layers, 64 x 64 tokens took 2.4
        # times as long), and in float32 for short rows of narrow heads (1.1 times, on two threads).
        short = key.shape[-2] <= 64 and query.shape[-1] <= 32
        slow = query.device.type == "cpu" and (query.dtype is torch.bfloat16 or short)
        return self.has_listeners or slow

    def pass_rows(
        self, query: Tensor, key: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> None:
        """Pass the pattern to `rows` in parts, computed one at a time."""
        first_key = self._first_key(query.shape[-2], key.shape[-2])
        for start in range(0, query.shape[-2], QUERIES):
            part_of_query = query[:, :, start : start + QUERIES]
            part_of_bias = None if bias is None else bias[..., start : start + QUERIES, :]
            mask = self.mask(part_of_query, key.shape[-2], part_of_bias, valid, first_key + start)
            self.rows(self._masked_scores(part_of_query, key, mask).softmax(dim=-1))

    def mask(
        self,
        query: Float[Tensor, "batch head query width"],
        num_keys: int,
        bias: Float[Tensor, "*#batch bias_head query key"] | None,
        valid: Bool[Tensor, "batch key"] | None,
        first: int | None = None,
    ) -> Float[Tensor, "*#shared #query key"] | None:
        """Return what is added to the scores: the bias, and -inf where a query must not look.

        `first` is the key at the position of the first query, if the queries are a part of all.
        """
        mask = self._visibility_mask(query, num_keys, first)
        if valid is not None:
            padding = query.new_zeros(valid.shape).masked_fill(~valid, -torch.inf)
            padding = rearrange(padding, "b k -> b 1 1 k")
            with_padding = padding if mask is None else mask + padding
            # A padded query whose window holds only padding looks at all valid keys instead.
            mask = torch.where(with_padding.isneginf().all(-1, keepdim=True), padding, with_padding)
        if bias is not None:
            shared = query.shape[1] // bias.shape[-3]
            # Fused kernels take masks of two or of four axes.
            bias = bias if bias.ndim == 4 else rearrange(bias, "h q k -> 1 h q k")
            bias = repeat(bias.to(query), "b h q k -> b (h shared) q k", shared=shared)
            mask = bias if mask is None else mask + bias
        return mask

    def mix_by_scores(
        self,
        scores: Float[Tensor, "batch head query key"],
        value: Float[Tensor, "batch value_head key d_value"],
        *,
        passes_rows: bool = True,
    ) -> Float[Tensor, "batch head query d_value"]:
        """Return the values mixed by the softmax of masked scores.

        `passes_rows` is as in `forward`.
        """
        pattern = self.pattern(self.scores(scores).softmax(dim=-1))
        if self.rows.has_listeners and passes_rows:
            for part_of_pattern in pattern.split(QUERIES, dim=2):
                self.rows(part_of_pattern)
        pattern = F.dropout(pattern, self.dropout, self.training)
        shared = scores.shape[1] // value.shape[1]
        value = repeat(value, "b h k d -> (b h shared) k d", shared=shared)
        mixed = rearrange(pattern, "b h q k -> (b h) q k") @ value
        return rearrange(mixed, "(b h) q d -> b h q d", b=len(scores))

    def _attend_explicitly(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        valid: Tensor | None,
        passes_rows: bool = True,
    ) -> Tensor:
        mask = self.mask(query, key.shape[-2], bias, valid)
        return self.mix_by_scores(
            self._masked_scores(query, key, mask), value, passes_rows=passes_rows
        )

    def _masked_scores(
        self, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "batch head query key"]:
        batch, num_heads, num_queries, d_head = query.shape
        mask = query.new_zeros(1, key.shape[-2]) if mask is None else mask
        key = repeat(key, "b h k d -> (b h shared) k d", shared=num_heads // key.shape[1])
        # Scale and mask are part of the product; separately, each would be a pass over all scores.
        scores = torch.baddbmm(
            rearrange(mask.expand(batch, num_heads, num_queries, -1), "b h q k -> (b h) q k"),
            rearrange(query, "b h q d -> (b h) q d"),
            rearrange(key, "n k d -> n d k"),
            alpha=d_head**-0.5,
        )
        return rearrange(scores, "(b h) q k -> b h q k", b=batch)

    def _attend_fused(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        (num_heads, num_queries, d_head), (num_keys, d_value) = query.shape[1:], value.shape[2:]
        # The kernel's own causal mask, for whole sequences, is faster than a mask that is passed.
        has_no_mask = bias is None and valid is None and num_keys <= (self.window or num_keys)
        uses_kernel_mask = has_no_mask and self.causal and num_queries == num_keys
        mask = None if uses_kernel_mask else self.mask(query, num_keys, bias, valid)
        is_exact_on_gpu = query.is_cuda and query.dtype not in (torch.bfloat16, torch.float16)
        if mask is not None or is_exact_on_gpu or key.shape[1] != value.shape[1]:
            # Not every kernel lets heads share keys under a mask, or on a GPU in float32.
            key, value = (
                repeat(x, "b h k d -> b (h shared) k d", shared=num_heads // x.shape[1])
                for x in (key, value)
            )
        if d_head != d_value:
            # For unequal widths, the only kernel is the one that stores all scores.
            width = max(d_head, d_value)
            products = 2 * len(query) * num_heads * num_queries * num_keys
            add_padding(products * (2 * width - d_head - d_value))
            query, key, value = (
                F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x
                for x in (query, key, value)
            )
        dropout, shared = self.dropout if self.training else 0.0, key.shape[1] != num_heads
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            dropout,
            uses_kernel_mask,
            scale=d_head**-0.5,
            enable_gqa=shared,
        )[..., :d_value]

    def _visibility_mask(
        self, query: Tensor, num_keys: int, first: int | None
    ) -> Float[Tensor, "query key"] | None:
        """Return -inf at future keys and keys outside of the window; None if there are none."""
        num_queries, window = query.shape[-2], self.window or num_keys
        if num_keys <= window and (not self.causal or (first is None and num_queries == 1)):
            return None
        first = self._first_key(num_queries, num_keys) if first is None else first
        all_hidden = query.new_full((num_queries, num_keys), -torch.inf)
        future = all_hidden.triu(first + (1 if self.causal else window))
        return future if num_keys <= window else future + all_hidden.tril(first - window)

    def _first_key(self, num_queries: int, num_keys: int) -> int:
        """Return the index of the key at the position of the first query."""
        return (num_keys - num_queries) // (1 if self.causal else 2)
