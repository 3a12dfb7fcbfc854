"""The same language model by other hands, as a measure of speed: tokens in, logits out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_TOKENS = 256


@dataclass(frozen=True)
class Shape:
    """A causal pre-norm Transformer with learned positions, and the batch that it trains on."""

    num_layers: int
    d_model: int
    num_heads: int
    batch: int
    length: int


TINY = Shape(num_layers=2, d_model=64, num_heads=4, batch=64, length=64)
MEDIUM = Shape(num_layers=4, d_model=256, num_heads=4, batch=16, length=256)

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps query, key and value, each (batch, head, seq, d_head), to the mixed values, causally."""


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Leave it to torch."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def filled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Hide the future by `masked_fill`, as nanoGPT's path without fused attention does."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~past, -torch.inf).softmax(dim=-1) @ value


def added(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Hide the future by adding to the scores of a scaled key; the softmax keeps the type.

    As zoology's MHA does.
    """
    scores = query @ (key / math.sqrt(query.shape[-1])).transpose(-2, -1)
    future = torch.full(scores.shape[-2:], -10000.0, device=scores.device).triu(1)
    return (scores + future.to(scores)).softmax(dim=-1, dtype=value.dtype) @ value


class LeanGPT(nn.Module):
    """A pre-norm decoder (Radford et al. 2019) with nothing in it but the arithmetic."""

    def __init__(self, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, shape.d_model)
        self.places = nn.Embedding(shape.length, shape.d_model)
        self.layers = nn.ModuleList(Layer(shape, kernel) for _ in range(shape.num_layers))
        self.norm, self.head = nn.LayerNorm(shape.d_model), nn.Linear(shape.d_model, NUM_TOKENS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        x = self.tokens(inputs) + self.places.weight[: inputs.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Layer(nn.Module):
    """Attention and a four times wider network."""

    def __init__(self, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        width = shape.d_model
        self.num_heads, self.kernel = shape.num_heads, kernel
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, seq, d_model) to the same."""
        batch, seq, width = x.shape
        query, key, value = (
            part.view(batch, seq, self.num_heads, -1).transpose(1, 2)
            for part in self.qkv(self.first(x)).split(width, dim=-1)
        )
        mixed = self.kernel(query, key, value).transpose(1, 2).reshape(batch, seq, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.second(x))))


class TorchEncoder(nn.Module):
    """torch's own encoder layers under a causal mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.d_model
        self.tokens, self.places = (
            nn.Embedding(NUM_TOKENS, width),
            nn.Embedding(shape.length, width),
        )
        layer = nn.TransformerEncoderLayer(
            width, shape.num_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, shape.num_layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, NUM_TOKENS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        x = self.tokens(inputs) + self.places.weight[: inputs.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(
            inputs.shape[1], device=x.device, dtype=x.dtype
        )
        return self.head(self.encoder(x, mask, is_causal=True))


class XTransformers(nn.Module):
    """x-transformers' decoder; no bias in its attention, norms and head."""

    def __init__(self, shape: Shape, flash: bool) -> None:
        super().__init__()
        from x_transformers import Decoder, TransformerWrapper

        self.wrapper = TransformerWrapper(
            num_tokens=NUM_TOKENS,
            max_seq_len=shape.length,
            attn_layers=Decoder(
                dim=shape.d_model,
                depth=shape.num_layers,
                heads=shape.num_heads,
                attn_dim_head=shape.d_model // shape.num_heads,
                attn_flash=flash,
            ),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.wrapper(inputs)


class Llama(nn.Module):
    """Hugging Face's Llama: RoPE, RMSNorm, no bias; SwiGLU narrowed to the products of ours."""

    def __init__(self, shape: Shape, attention: str) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=NUM_TOKENS,
            hidden_size=shape.d_model,
            # Three matrices in place of two: 8/3 as wide, in multiples of 8.
            intermediate_size=8 * round(shape.d_model / 3),
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            max_position_embeddings=shape.length,
            attn_implementation=attention,  # pyright: ignore[reportCallIssue]
            use_cache=False,
        )
        self.llama = LlamaForCausalLM(config)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.llama(inputs).logits


class GPT2(nn.Module):
    """Hugging Face's GPT-2, without dropout and with a head of its own; no bias in the head."""

    def __init__(self, shape: Shape, attention: str) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=NUM_TOKENS,
            n_positions=shape.length,
            n_embd=shape.d_model,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            # The exact GELU, as everybody here has it; GPT-2's own is an approximation by tanh.
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation=attention,  # pyright: ignore[reportCallIssue]
            tie_word_embeddings=False,
            use_cache=False,
            # Outside of the 256 tokens otherwise.
            bos_token_id=0,
            eos_token_id=0,
        )
        self.gpt2 = GPT2LMHeadModel(config)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.gpt2(inputs).logits


PEERS: Mapping[str, Callable[[Shape], nn.Module]] = {
    "lean GPT, SDPA": lambda shape: LeanGPT(shape, fused),
    "lean GPT, masked_fill": lambda shape: LeanGPT(shape, filled),
    "lean GPT, additive mask": lambda shape: LeanGPT(shape, added),
    "torch.nn.TransformerEncoder": TorchEncoder,
    "x-transformers, flash": lambda shape: XTransformers(shape, flash=True),
    "x-transformers, explicit": lambda shape: XTransformers(shape, flash=False),
    "Llama (transformers), sdpa": lambda shape: Llama(shape, "sdpa"),
    "Llama (transformers), eager": lambda shape: Llama(shape, "eager"),
    "GPT-2 (transformers), sdpa": lambda shape: GPT2(shape, "sdpa"),
    "GPT-2 (transformers), eager": lambda shape: GPT2(shape, "eager"),
}
"""How to make each, by the name in the table."""
