"""The Transformer: a decoder where the objective is causal, an encoder where it is not."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.ffn.base import FFN, Losses
from attnlab.mixer.base import Mixer
from attnlab.model.base import Model, embedding, require_causal, require_length
from attnlab.model.block import PreNorm
from attnlab.position.base import Position
from attnlab.tap import Tap


class Transformer(Model):
    """Stacks blocks of a mixer and a feed-forward network (Vaswani et al. 2017, sec. 3).

    Initialisation: embeddings and learned positions N(0, .08), every nn.Linear the library's
    default (uniform within 1/sqrt(fan_in)), norms 1 and 0; of three, the one with the lowest
    validation loss on `pronoun` in every arm (experiments/LOG.md).
    """

    def __init__(
        self,
        num_tokens: int,
        num_outputs: int,
        max_length: int,
        causal: bool,
        *,
        mixer: Callable[..., Mixer],
        position: Callable[..., Position],
        ffn: Callable[..., FFN],
        block: Callable[..., PreNorm],
        num_layers: int = 2,
        d_model: int = 64,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1")
        if tied and num_outputs != num_tokens:
            raise ValueError(
                f"tied=true needs an output for each token, but there are {num_outputs} outputs "
                f"and {num_tokens} tokens"
            )
        self.causal, self.max_length = causal, max_length
        self.network_depth = num_layers + 2
        self.embedding, self.embedded = embedding(num_tokens, d_model, std=0.08), Tap()
        self.position = position(d_model, max_length)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            block(d_model, self.position, causal, mixer, ffn) for _ in range(num_layers)
        )
        self.norm = copy.deepcopy(self._blocks()[0].mixer_norm)
        self.head = nn.Linear(d_model, num_outputs, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight

    def encode(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        require_length(inputs.shape[1], self.max_length)
        at = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.dropout(self.position.embed(self.embedded(self.embedding(inputs)), at))
        total: Losses = {}
        for block in self._blocks():
            x, losses = block(x, valid)
            for name, loss in losses.items():
                total[name] = total[name] + loss if name in total else loss
        return self.norm(x), total

    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        require_causal(self.causal)
        require_length(at + 1, self.max_length)
        states = state or [None] * len(self.blocks)
        x = self.position.embed(self.embedding(inputs), torch.tensor([at], device=inputs.device))
        after = []
        for block, before in zip(self._blocks(), states, strict=True):
            x, kept = block.step(x, at, before)
            after.append(kept)
        return self.head(self.norm(x)), after

    def state_size(self, length: int) -> int | None:
        if not self.causal:
            return None
        return sum(block.mixer.state_size(length) for block in self._blocks())

    def _blocks(self) -> list[Any]:
        return list(self.blocks)
