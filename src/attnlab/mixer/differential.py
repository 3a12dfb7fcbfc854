"""Differential self-attention."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnlab.mixer.base import Attention, RMSNorm
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, Width, ranged


@ranged
class Differential(Attention):
    """Takes the difference of two patterns, so that noise cancels (Ye et al. 2024, sec. 2.1).

        a, b = two patterns of a head, each softmax over s of q_t . k_s / sqrt(d_head)
        y_t = W_O (1 - lambda_init) norm(sum_s (a_ts - lambda b_ts) v_s)
        lambda = exp(q_1 . k_1) - exp(q_2 . k_2) + lambda_init
        lambda_init = .8 - .6 exp(-.3 layer)

    Each of `num_heads` heads has two queries and two keys of width d_model / (2 num_heads), our
    `d_head` and their d, and one value twice as wide. The second pattern counts lambda times; one
    lambda serves all heads of a layer (eq. 2). Both patterns of a head stand side by side in the
    taps, which so have 2 x num_heads heads; a position's bias is the same for both. Biases of the
    projections are ours, for a comparison with other attentions; the paper has none.

    `num_kv_heads` shares keys and values (null: one value and two keys for each head). As in the
    authors' code (unilm, multihead_diffattn.py), each of the 2 x num_kv_heads keys serves
    successive queries, so that both patterns of a head may read one key.

    Initialisation (so that lambda starts near .8 - .6 exp(-.3 layer)):
        lambda_query, lambda_key | N(0, 0.1)
    """

    patterns_per_head = 2
    undecayed = ("lambda_query", "lambda_key")

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 2,
        num_kv_heads: Width | None = None,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
    ) -> None:
        if d_model % (2 * num_heads):
            raise ValueError(
                f"d_model={d_model} does not split into two queries for each of "
                f"num_heads={num_heads} heads"
            )
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
        d_head = d_model // (2 * num_heads)
        super().__init__(d_model, position, causal, num_heads, dropout, d_head)
        self.query = nn.Linear(d_model, d_model, bias)
        self.d_keys = 2 * self.num_kv_heads * d_head
        self.key_value = nn.Linear(d_model, 2 * self.d_keys, bias)
        self.output = nn.Linear(d_model, d_model, bias)
        # Their layers count from 1.
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.lambda_query, self.lambda_key = (
            nn.Parameter(torch.empty(2, d_head).normal_(std=0.1)) for _ in range(2)
        )
        self.norm = RMSNorm(2 * d_head, eps=1e-5)

    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return rearrange(self.query(x), "b s (h d) -> b h s d", h=2 * self.num_heads)

    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(x).chunk(2, dim=-1)
        return (
            rearrange(key, "b s (h d) -> b h s d", h=2 * self.num_kv_heads),
            rearrange(value, "b s (h d) -> b h s d", h=self.num_kv_heads),
        )

    def state_size(self, length: int) -> int:
        return 2 * length * self.d_keys

    def merge(
        self, heads: Float[Tensor, "batch head seq d_value"]
    ) -> Float[Tensor, "batch seq d_model"]:
        first, second = rearrange(heads, "b (h two) s d -> two b h s d", two=2)
        # Eq. 2.
        lambda_1, lambda_2 = (self.lambda_query * self.lambda_key).sum(dim=-1).exp()
        mixed = first - (lambda_1 - lambda_2 + self.lambda_init) * second
        mixed = self.norm(mixed) * (1 - self.lambda_init)
        return self.output(rearrange(mixed, "b h s d -> b s (h d)"))
