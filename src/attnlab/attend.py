"""The scaled dot-product that the attention mixers share."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.padding import add_padding
from attnlab.ranges import ShareBelowOne, ranged
from attnlab.tap import Tap

QUERIES = 64
"""Rows of the pattern that pass the tap `rows` at once."""


@ranged
class Attend(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), fused unless somebody looks.

    The taps `scores` (before the softmax, future and padding at -inf) and `pattern` (after it, each
    row sums to 1) exist on the explicit path, which runs only when one of them is heard, or where
    it is the faster one. Both paths agree within 1e-5 in float32. In bfloat16 the explicit one
    rounds scores and pattern: its output is off by .3 % of its root mean square for scores of
    variance 1, by .8 % for 16, and a row sums to 1 within .003 (fused: .2 %).

    The tap `rows` passes the same pattern a few queries at a time, from the first to the last, and
    leaves the path as it is: statistics of a long sequence need no square. What it gives back is
    not used.

    Keys, values and bias may have fewer heads than the queries, each for several successive ones.
    `query` stands for the last positions of `key`, or for the middle ones where it sees both ways.
    With a `window` it sees that many keys, its own the last (both ways: window - 1 on each side).

    A model's attention layers are found by their `Attend`: whatever mixes with one, in a module of
    any name, is recorded, measured, cut and drawn. `num_heads` states how many patterns it has.
    """

    def __init__(
        self, causal: bool, dropout: ShareBelowOne, num_heads: int, window: int | None = None
    ) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout
        self.num_heads, self.window = num_heads, window
        self.scores, self.pattern, self.rows = Tap(), Tap(), Tap()

    @property
    def heard(self) -> bool:
        """Whether anyone listens to scores or patterns."""
        return self.scores.heard or self.pattern.heard

    def forward(
        self,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch key_head key d_head"],
        value: Float[Tensor, "batch value_head key d_value"],
        bias: Float[Tensor, "*#batch bias_head query key"] | None = None,
        valid: Bool[Tensor, "batch key"] | None = None,
        *,
        shown: bool = True,
    ) -> Float[Tensor, "batch head query d_value"]:
        """Mix the values by how well their keys answer the query.

        Who has shown the rows already, of more than these keys, says so by `shown=False`.
        """
        if self.takes_explicit_path(query, key):
            return self._explicit(query, key, value, bias, valid, shown)
        if self.rows.heard and shown:
            self.show(query, key, bias, valid)
        return self._fused(query, key, value, bias, valid)

    def takes_explicit_path(self, query: Tensor, key: Tensor) -> bool:
        """Return whether the pattern is computed: for who looks, or where that is faster."""
        # On a CPU the fused kernel is slow in bfloat16 (a step of 2 layers, 64 x 64 tokens took 2.4
        # times as long), and in float32 for short rows of narrow heads (1.1 times, on two threads).
        short = key.shape[-2] <= 64 and query.shape[-1] <= 32
        slow = query.device.type == "cpu" and (query.dtype is torch.bfloat16 or short)
        return self.heard or slow

    def show(self, query: Tensor, key: Tensor, bias: Tensor | None, valid: Tensor | None) -> None:
        """Pass the pattern to `rows` in parts, none of which outlives the next."""
        begin = self._first(query.shape[-2], key.shape[-2])
        for start in range(0, query.shape[-2], QUERIES):
            part = query[:, :, start : start + QUERIES]
            near = None if bias is None else bias[..., start : start + QUERIES, :]
            mask = self.mask(part, key.shape[-2], near, valid, begin + start)
            self.rows(self._scored(part, key, mask).softmax(dim=-1))

    def mask(
        self,
        query: Float[Tensor, "batch head query width"],
        num_keys: int,
        bias: Float[Tensor, "*#batch bias_head query key"] | None,
        valid: Bool[Tensor, "batch key"] | None,
        first: int | None = None,
    ) -> Float[Tensor, "*#shared #query key"] | None:
        """Give what is added to the scores: the bias, and -inf where a query must not look.

        `first` is the key at the place of the first query, where the queries are a part of all.
        """
        mask = self._hidden(query, num_keys, first)
        if valid is not None:
            padding = query.new_zeros(valid.shape).masked_fill(~valid, -torch.inf)
            padding = rearrange(padding, "b k -> b 1 1 k")
            near = padding if mask is None else mask + padding
            # Padding with padding alone in its window looks at all that is there.
            mask = torch.where(near.isneginf().all(-1, keepdim=True), padding, near)
        if bias is not None:
            shared = query.shape[1] // bias.shape[-3]
            # Fused kernels take masks of two or of four axes.
            bias = bias if bias.ndim == 4 else rearrange(bias, "h q k -> 1 h q k")
            bias = repeat(bias.to(query), "b h q k -> b (h shared) q k", shared=shared)
            mask = bias if mask is None else mask + bias
        return mask

    def weigh(
        self,
        scores: Float[Tensor, "batch head query key"],
        value: Float[Tensor, "batch value_head key d_value"],
        *,
        shown: bool = True,
    ) -> Float[Tensor, "batch head query d_value"]:
        """Mix the values by finished scores; `shown` is as in `forward`."""
        pattern = self.pattern(self.scores(scores).softmax(dim=-1))
        if self.rows.heard and shown:
            for some in pattern.split(QUERIES, dim=2):
                self.rows(some)
        pattern = F.dropout(pattern, self.dropout, self.training)
        shared = scores.shape[1] // value.shape[1]
        value = repeat(value, "b h k d -> (b h shared) k d", shared=shared)
        mixed = rearrange(pattern, "b h q k -> (b h) q k") @ value
        return rearrange(mixed, "(b h) q d -> b h q d", b=len(scores))

    def _explicit(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        valid: Tensor | None,
        shown: bool = True,
    ) -> Tensor:
        mask = self.mask(query, key.shape[-2], bias, valid)
        return self.weigh(self._scored(query, key, mask), value, shown=shown)

    def _scored(
        self, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "batch head query key"]:
        batch, num_heads, num_queries, d_head = query.shape
        mask = query.new_zeros(1, key.shape[-2]) if mask is None else mask
        key = repeat(key, "b h k d -> (b h shared) k d", shared=num_heads // key.shape[1])
        # Scale and mask ride on the product; each alone would go through all the scores again.
        scores = torch.baddbmm(
            rearrange(mask.expand(batch, num_heads, num_queries, -1), "b h q k -> (b h) q k"),
            rearrange(query, "b h q d -> (b h) q d"),
            rearrange(key, "n k d -> n d k"),
            alpha=d_head**-0.5,
        )
        return rearrange(scores, "(b h) q k -> b h q k", b=batch)

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        (num_heads, num_queries, d_head), (num_keys, d_value) = query.shape[1:], value.shape[2:]
        # The kernel's own causal mask, for whole sequences, is faster than one that it is given.
        plain = bias is None and valid is None and num_keys <= (self.window or num_keys)
        own = plain and self.causal and num_queries == num_keys
        mask = None if own else self.mask(query, num_keys, bias, valid)
        gpu_exact = query.is_cuda and query.dtype not in (torch.bfloat16, torch.float16)
        if mask is not None or gpu_exact or key.shape[1] != value.shape[1]:
            # Not every kernel lets heads share keys under a mask, or on a GPU in float32.
            key, value = (
                repeat(x, "b h k d -> b (h shared) k d", shared=num_heads // x.shape[1])
                for x in (key, value)
            )
        if d_head != d_value:
            # For unequal widths there is but a kernel that writes all scores down.
            width = max(d_head, d_value)
            products = 2 * len(query) * num_heads * num_queries * num_keys
            add_padding(products * (2 * width - d_head - d_value))
            query, key, value = (
                F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x
                for x in (query, key, value)
            )
        dropout, shared = self.dropout if self.training else 0.0, key.shape[1] != num_heads
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout, own, scale=d_head**-0.5, enable_gqa=shared
        )[..., :d_value]

    def _hidden(
        self, query: Tensor, num_keys: int, first: int | None
    ) -> Float[Tensor, "query key"] | None:
        num_queries, window = query.shape[-2], self.window or num_keys
        if num_keys <= window and (not self.causal or (first is None and num_queries == 1)):
            return None
        first = self._first(num_queries, num_keys) if first is None else first
        everything = query.new_full((num_queries, num_keys), -torch.inf)
        future = everything.triu(first + (1 if self.causal else window))
        return future if num_keys <= window else future + everything.tril(first - window)

    def _first(self, num_queries: int, num_keys: int) -> int:
        """Give the key at whose place the first query stands."""
        return (num_keys - num_queries) // (1 if self.causal else 2)
