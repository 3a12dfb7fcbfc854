"""The recurrent baseline."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.ffn.base import Losses
from attnlab.layers import Axes
from attnlab.mixer.base import Mixer, reversed_indices, take_positions
from attnlab.model.base import (
    DIRECTIONS,
    Arrangement,
    Model,
    embedding,
    require_causal,
    require_prefix,
)
from attnlab.position.base import Position
from attnlab.ranges import FewCount, ShareBelowOne, Width, ranged
from attnlab.recurrence.cells import Cells
from attnlab.tap import Tap


@ranged
class Recurrent(Model):
    """Embedding, stacked LSTM, head (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005).

    The library's fused cells, d_model units per direction; both directions where the objective lets
    a position see everything. No residual, norm, feed-forward network or position scheme. `dropout`
    stands between the layers and before the head (Zaremba et al. 2014).

    With an encoder, the answering stack starts from what the encoder's two directions end in
    (Sutskever et al. 2014, with a learned map of it). `attention` reads the encoder's states by the
    answering state of the same position (Luong et al. 2015, sec. 3.1, so that training needs no
    loop over positions; with `additive` the score is that of Bahdanau et al. 2015); without an
    encoder, a bidirectional stack reads its own states. What is read stands beside the state.

    Initialisation; of three, the one with the lowest validation loss on `pronoun`
    (experiments/LOG.md):
        embedding.weight | N(0, 1)
        layers.*, encoder.* | U(1/sqrt(d_model))
        * | U(1/sqrt(fan_in))
    """

    def __init__(
        self,
        num_tokens: int,
        num_outputs: int,
        max_length: int,
        arrangement: Arrangement,
        *,
        num_layers: FewCount = 2,
        d_model: Width = 64,
        dropout: ShareBelowOne = 0.0,
        attention: Callable[..., Mixer] | None = None,
    ) -> None:
        super().__init__()
        if arrangement.latents is not None:
            raise ValueError(
                "an LSTM passes one state from encoder to decoder, and no latents; use "
                "model=transformer, or objective=seq2seq"
            )
        if arrangement.boundary is not None:
            raise ValueError(
                "objective.document_mask=true hides documents from each other, and an LSTM reads "
                "all that stands before; use a mixer with a softmax over positions, or no mask"
            )
        if attention is not None and arrangement.causal and not arrangement.encoder:
            raise ValueError(
                "attention reads an encoder's states, or those of a bidirectional stack; a causal "
                "stack has none: use attention=null, or model/mixer=hybrid in a transformer"
            )
        self.arrangement, self.num_layers, self.d_model = arrangement, num_layers, d_model
        self.network_depth = num_layers * (1 + arrangement.encoder) + 2
        self.embedding, self.embedded = embedding(num_tokens, d_model, std=1.0), Tap()
        # One module per layer and direction: a right-padded sequence is read backwards from its own
        # last token, which a stacked bidirectional module can only do on packed sequences.
        self.layers = _build_stack(num_layers, d_model, arrangement.causal)
        width = d_model if arrangement.causal else 2 * d_model
        self.attention = None
        if attention is not None:
            self.attention = attention(width, Position(width, 0), False, num_layers)
            self.attention.require_cross_attention("attention")
        self.encoder = self.initial = self.memory = None
        if arrangement.encoder:
            self.encoder = _build_stack(num_layers, d_model, causal=False)
            self.initial = nn.Linear(2 * d_model, 2 * d_model * num_layers)
            # The encoder's states are twice as wide as the answering states that query them.
            self.memory = nn.Linear(2 * d_model, d_model) if self.attention else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width if self.attention else width, num_outputs)

    @property
    def token_vectors(self) -> Float[Tensor, "token d_model"]:
        return self.embedding.weight

    def encode(
        self,
        inputs: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        prefix: Int[Tensor, "batch label"] | None = None,
        prefix_valid: Bool[Tensor, "batch label"] | None = None,
    ) -> tuple[Float[Tensor, "batch position width"], Losses]:
        require_prefix(self.arrangement, prefix)
        if prefix is None:
            x = self._run_stack(self.layers, self.embedded(self.embedding(inputs)), valid)
            return self._append_attention(x, x, valid)[0], {}
        memory, valid, states, _ = self.start(inputs, valid)
        x = self.embedding(prefix)
        for layer, state in zip(_modules(self.layers), states, strict=True):
            x = self.dropout(layer["forwards"](x, _layer_first(state))[0])
        return self._append_attention(x, memory, valid)[0], {}

    def start(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> Any:
        if self.encoder is None or self.initial is None:
            return super().start(inputs, valid)
        states = self._run_stack(self.encoder, self.embedded(self.embedding(inputs)), valid)
        forwards, backwards = states.chunk(2, dim=-1)
        last = torch.full_like(inputs[:, :1], inputs.shape[1] - 1)
        if valid is not None:
            last = valid.sum(dim=1, keepdim=True) - 1
        ends = torch.cat((take_positions(forwards, last), backwards[:, :1]), dim=-1)
        hidden, cell = rearrange(
            self.initial(ends), "b 1 (two l d) -> two l b 1 d", two=2, l=self.num_layers
        )
        start = list(zip(hidden.tanh(), cell, strict=True))
        memory = self.memory and self.memory(states)
        return memory, valid, start, None

    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        require_causal(self.causal)
        if self.encoder is not None and state is None:
            raise ValueError("an encoder-decoder steps from the state that `start` gives")
        memory, valid, states, read = state or (None, None, [None] * self.num_layers, None)
        x, states_after = self.embedding(inputs), []
        for layer, state_before in zip(_modules(self.layers), states, strict=True):
            x, state_after = layer["forwards"](x, _layer_first(state_before))
            x = self.dropout(x)
            states_after.append(tuple(rearrange(part, "1 b d -> b 1 d") for part in state_after))
        x, read = self._append_attention(x, memory, valid, read)
        return self.head(x), (memory, valid, states_after, read)

    def state_size(self, length: int) -> int | None:
        if not self.causal:
            return None
        num_kept = 2 * self.num_layers * self.d_model
        if self.attention is None:
            return num_kept
        read_size = self.attention.state_size(length)
        return None if read_size is None else num_kept + length * self.d_model + read_size

    def sequence_axes(self) -> Mapping[nn.Module, Axes]:
        if self.encoder is None:
            return {}
        axes: dict[nn.Module, Axes] = {self.layers: Axes("prefix", "prefix")}
        return axes if self.attention is None else {**axes, self.attention: Axes("prefix")}

    def _run_stack(
        self, layers: nn.ModuleList, x: Float[Tensor, "batch seq d_model"], valid: Tensor | None
    ) -> Float[Tensor, "batch seq width"]:
        reversal = reversed_indices(x, valid) if "backwards" in _modules(layers)[0] else None
        for layer in _modules(layers):
            forwards = layer["forwards"](x)[0]
            if reversal is None:
                x = self.dropout(forwards)
                continue
            backwards = take_positions(layer["backwards"](take_positions(x, reversal))[0], reversal)
            x = self.dropout(torch.cat((forwards, backwards), dim=-1))
        return x

    def _append_attention(
        self,
        x: Float[Tensor, "batch seq width"],
        memory: Tensor | None,
        valid: Tensor | None,
        state: Any = None,
    ) -> tuple[Float[Tensor, "batch seq wider"], Any]:
        """Append to each position what its attention reads of the memory; return the state too."""
        if self.attention is None or memory is None:
            return x, None
        from_memory, state = self.attention.cross_attend(x, memory, valid, state)
        return torch.cat((x, self.dropout(from_memory)), dim=-1), state


def _build_stack(num_layers: int, d_model: int, causal: bool) -> nn.ModuleList:
    """Build the layers, each a dict from direction to LSTM cells."""
    directions = DIRECTIONS[:1] if causal else DIRECTIONS
    return nn.ModuleList(
        nn.ModuleDict(
            {
                direction: Cells(
                    len(directions) * d_model if layer else d_model, d_model, batch_first=True
                )
                for direction in directions
            }
        )
        for layer in range(num_layers)
    )


def _layer_first(state: Any) -> Any:
    """Return a state with the axes that nn.LSTM takes, the layer first."""
    return state and tuple(rearrange(part, "b 1 d -> 1 b d").contiguous() for part in state)


def _modules(layers: nn.ModuleList) -> list[Any]:
    """Return the modules of a list as `Any`: PyTorch types each one as a plain Module."""
    return list(layers)
