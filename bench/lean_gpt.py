"""A GPT with nothing in it but the arithmetic, as a measure of speed."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeanGPT(nn.Module):
    """A pre-norm decoder (Radford et al. 2019); attention fused, or an explicit softmax."""

    def __init__(
        self,
        num_tokens: int,
        length: int,
        num_layers: int,
        d_model: int,
        num_heads: int,
        fused: bool,
    ) -> None:
        super().__init__()
        self.tokens, self.places = (
            nn.Embedding(num_tokens, d_model),
            nn.Embedding(length, d_model),
        )
        self.layers = nn.ModuleList(
            Layer(length, d_model, num_heads, fused) for _ in range(num_layers)
        )
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, num_tokens)

    def forward(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Give logits at the asked positions, as attnlab's models do."""
        x = self.tokens(inputs) + self.places.weight[: inputs.shape[1]]
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x).gather(1, at[..., None].expand(-1, -1, x.shape[-1]))
        return self.head(x)


class Layer(nn.Module):
    """Attention and a four times wider network."""

    def __init__(self, length: int, d_model: int, num_heads: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.first, self.second = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.register_buffer("past", torch.ones(length, length).tril().bool(), persistent=False)
        self.past: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, seq, d_model) to the same."""
        batch, seq, width = x.shape
        q, k, v = (
            t.view(batch, seq, self.num_heads, -1).transpose(1, 2)
            for t in self.qkv(self.first(x)).split(width, dim=-1)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            scores = scores.masked_fill(~self.past[:seq, :seq], -torch.inf)
            y = scores.softmax(dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, seq, width))
        return x + self.down(F.gelu(self.up(self.second(x))))
