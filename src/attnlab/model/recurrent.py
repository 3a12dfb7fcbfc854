"""The recurrent baseline."""

from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.ffn.base import Losses
from attnlab.model.base import Model, embedding, require_causal
from attnlab.tap import Tap


class Recurrent(Model):
    """Embedding, stacked LSTM, head (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005).

    The library's fused cells, d_model units per direction; both directions where the objective lets
    a position see everything. No residual, norm, feed-forward network or position scheme. `dropout`
    stands between the layers and before the head (Zaremba et al. 2014).

    Initialisation: embeddings N(0, 1), everything else the library's default; of three, the one
    with the lowest validation loss on `pronoun` (experiments/LOG.md).
    """

    def __init__(
        self,
        num_tokens: int,
        num_outputs: int,
        max_length: int,
        causal: bool,
        *,
        num_layers: int = 2,
        d_model: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1")
        self.causal, self.num_layers, self.d_model = causal, num_layers, d_model
        self.network_depth = num_layers + 2
        self.embedding, self.embedded = embedding(num_tokens, d_model, std=1.0), Tap()
        width = d_model if causal else 2 * d_model
        ways = ("forwards",) if causal else ("forwards", "backwards")
        # One module a layer and direction: a right-padded sequence is read backwards from its own
        # last token, which a stacked bidirectional module could only do on packed sequences.
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    way: nn.LSTM(width if layer else d_model, d_model, batch_first=True)
                    for way in ways
                }
            )
            for layer in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_outputs)

    def encode(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> tuple[Float[Tensor, "batch seq width"], Losses]:
        x = self.embedded(self.embedding(inputs))
        mirror = None if self.causal else _mirror(inputs, valid)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            forwards = layer["forwards"](x)[0]
            if mirror is None:
                x = self.dropout(forwards)
                continue
            backwards = _take(layer["backwards"](_take(x, mirror))[0], mirror)
            x = self.dropout(torch.cat((forwards, backwards), dim=-1))
        return x, {}

    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        require_causal(self.causal)
        x, after = self.embedding(inputs), []
        for layer, before in zip(self.layers, state or [None] * self.num_layers, strict=True):
            assert isinstance(layer, nn.ModuleDict)
            x, kept = layer["forwards"](x, before)
            x = self.dropout(x)
            after.append(kept)
        return self.head(x), after

    def state_size(self, length: int) -> int | None:
        return 2 * self.num_layers * self.d_model if self.causal else None


def _mirror(inputs: Tensor, valid: Tensor | None) -> Int[Tensor, "batch seq"]:
    """Index each sequence backwards from its last valid token; padding stays where it is."""
    at = torch.arange(inputs.shape[1], device=inputs.device)
    if valid is None:
        return repeat(at.flip(0), "s -> b s", b=len(inputs))
    return torch.where(valid, valid.sum(dim=1, keepdim=True) - 1 - at, at)


def _take(
    x: Float[Tensor, "batch seq width"], index: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq width"]:
    return x.gather(1, repeat(index, "b s -> b s w", w=x.shape[-1]))
