"""Multi-head latent self-attention."""

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.mixer.base import Attention, RMSNorm, State
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, Width, ranged


@ranged
class Latent(Attention):
    """Expands keys and values from one small latent per token (DeepSeek-AI 2024, V2, sec. 2.1).

        c_s = norm(W_C x_s);  k_s = (W_K c_s, R_s W_R x_s);  v_s = W_V c_s, in each head
        a_ts = softmax over s of q_t . k_s / sqrt(d_head + d_rotary);  y_t = W_O (sum_s a_ts v_s)

    A head's key is its own part, expanded from the latent, beside a rotary part that all heads
    share (eq. 9-19); positions rotate that one alone. The state holds the latent and the rotary
    key. Steps and reading score against the latents themselves: the matrix that would expand them
    is taken to the query and to what was read (sec. 2.1.2). Latents are normalised (sec. 3.1.2),
    and there are no biases, as in the paper.

    Left null, `kv_rank` (their d_c) is d_model / 2, `query_rank` (d_c') leaves queries
    uncompressed, as in their V2-Lite, and `d_rotary` (d_h^R) is half a head's width, even.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        kv_rank: Width | None = None,
        query_rank: Width | None = None,
        d_rotary: Width | None = None,
        dropout: ShareBelowOne = 0.0,
    ) -> None:
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        d_head = d_model // num_heads
        d_rotary = 2 * max(1, d_head // 4) if d_rotary is None else d_rotary
        super().__init__(d_model, position, causal, num_heads, dropout, d_rotary)
        self.d_head, self.d_rotary = d_head, d_rotary
        self.kv_rank = max(1, d_model // 2) if kv_rank is None else kv_rank
        d_query = num_heads * (self.d_head + self.d_rotary)
        if query_rank is None:
            self.query = nn.Linear(d_model, d_query, bias=False)
        else:
            self.query = nn.Sequential(
                nn.Linear(d_model, query_rank, bias=False),
                RMSNorm(query_rank, eps=1e-6),
                nn.Linear(query_rank, d_query, bias=False),
            )
        self.compress = nn.Linear(d_model, self.kv_rank + self.d_rotary, bias=False)
        self.norm = RMSNorm(self.kv_rank, eps=1e-6)
        self.expand = nn.Linear(self.kv_rank, 2 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return rearrange(self.query(x), "b s (h d) -> b h s d", h=self.num_heads)

    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        """Return the latents and the rotary keys, (batch, 1, seq, kv_rank) and (.., d_rotary)."""
        compressed = rearrange(self.compress(x), "b s d -> b 1 s d")
        latent, rotary = compressed.split((self.kv_rank, self.d_rotary), dim=-1)
        return self.norm(latent), rotary

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        latent, rotary = self.project_key_value(x)
        key, value = rearrange(
            self.expand(latent), "b 1 s (two h d) -> two b h s d", two=2, h=self.num_heads
        )
        rotary = repeat(self.position.rotate(rotary, at), "b 1 s d -> b h s d", h=self.num_heads)
        return (
            self._rotate_query(self.project_query(x), at),
            torch.cat((key, rotary), dim=-1),
            value,
        )

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: State = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.causal:
            return super().step(x, at, state)
        positions = torch.arange(at + 1, device=x.device)
        latent, rotary = self.project_key_value(x)
        token = torch.cat((latent, self.position.rotate(rotary, positions[-1:])), dim=-1)
        memory = token if state is None else torch.cat((state, token), dim=-2)
        query = self._query_latents(self._rotate_query(self.project_query(x), positions[-1:]))
        mixed = self._mix(query, memory, memory, positions, None, documents)
        return self._expand_and_merge(mixed), memory

    def state_size(self, length: int) -> int:
        return length * (self.kv_rank + self.d_rotary)

    def cross_attend(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"],
        valid: Bool[Tensor, "batch source"] | None = None,
        state: State = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], State]:
        latents = torch.cat(self.project_key_value(memory), dim=-1) if state is None else state
        return self._expand_and_merge(
            self.mix(self._query_latents(self.project_query(x)), latents, latents, None, valid)
        ), latents

    def _rotate_query(self, query: Tensor, positions: Tensor) -> Tensor:
        unrotated, rotary = query.split((self.d_head, self.d_rotary), dim=-1)
        return torch.cat((unrotated, self.position.rotate(rotary, positions)), dim=-1)

    def _query_latents(self, query: Float[Tensor, "batch head seq d_key"]) -> Tensor:
        """Multiply the queries by the key expansion, so that they score latents (sec. 2.1.2)."""
        unrotated, rotary = query.split((self.d_head, self.d_rotary), dim=-1)
        unrotated = einsum(unrotated, self._expansion()[0], "b h s d, h d r -> b h s r")
        # Attention divides by the root of the width of these queries, not by that of a head's.
        scale = ((self.kv_rank + self.d_rotary) / query.shape[-1]) ** 0.5
        return torch.cat((unrotated, rotary), dim=-1) * scale

    def _expand_and_merge(self, mixed_latents: Float[Tensor, "batch head seq width"]) -> Tensor:
        """Expand mixed latents to values, merge the heads and project them to d_model."""
        latent = mixed_latents[..., : self.kv_rank]
        return self.merge(einsum(latent, self._expansion()[1], "b h s r, h d r -> b h s d"))

    def _expansion(self) -> Float[Tensor, "two head d_head kv_rank"]:
        """Return the matrices that expand a latent to each head's key and to its value."""
        return rearrange(self.expand.weight, "(two h d) r -> two h d r", two=2, h=self.num_heads)
