"""The Transformer: a decoder, an encoder, or both, as the objective's arrangement says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.ffn.base import FFN, Losses
from attnlab.layers import Axes, SequenceName
from attnlab.mixer.base import Mixer
from attnlab.model.base import (
    Arrangement,
    Model,
    embedding,
    require_causal,
    require_length,
    require_prefix,
)
from attnlab.model.block import Block
from attnlab.position.base import Position
from attnlab.ranges import FewCount, ShareBelowOne, Width, ranged
from attnlab.tap import Tap

LATENTS = Axes("latents", "inputs")


@ranged
class Transformer(Model):
    """Stacks blocks of a mixer and a feed-forward network (Vaswani et al. 2017, sec. 3).

    With an encoder, both stacks have `num_layers` blocks and share the token vectors, and each has
    a position scheme of its own. With `latents`, so many trained queries read the encoder's output,
    and they are all that the answering stack sees of it.

    Initialisation, beside that of mixers, networks and positions; of three, the one with the lowest
    validation loss on `pronoun` in every arm (experiments/LOG.md):
        embedding.weight, bottleneck.latents | N(0, 0.08)
        *norm.weight | 1
        *norm.bias | 0
        * | U(1/sqrt(fan_in))
    """

    def __init__(
        self,
        num_tokens: int,
        num_outputs: int,
        max_length: int,
        arrangement: Arrangement,
        *,
        mixer: Callable[..., Mixer],
        position: Callable[..., Position],
        ffn: Callable[..., FFN],
        block: Callable[..., Block],
        num_layers: FewCount = 2,
        d_model: Width = 64,
        dropout: ShareBelowOne = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if tied and num_outputs != num_tokens:
            raise ValueError(
                f"tied=true needs an output for each token, but there are {num_outputs} outputs "
                f"and {num_tokens} tokens"
            )
        self.arrangement, self.max_length = arrangement, max_length
        self.network_depth = num_layers * (1 + arrangement.encoder) + 2
        self.embedding, self.embedded = embedding(num_tokens, d_model, std=0.08), Tap()
        self.position = position(d_model, max_length)
        self.dropout = nn.Dropout(dropout)

        def stack(position: Position, causal: bool, reads: bool) -> nn.ModuleList:
            return nn.ModuleList(
                block(d_model, position, causal, mixer, ffn, layer, reads)
                for layer in range(num_layers)
            )

        self.blocks = stack(self.position, arrangement.causal, arrangement.encoder)
        self.norm = _final_norm(self.blocks, d_model)
        self.encoder = None
        if arrangement.encoder:
            encoder_position = position(d_model, max_length)
            self.encoder = Encoder(encoder_position, stack(encoder_position, False, False), d_model)
        self.bottleneck = None
        if arrangement.latents is not None:
            self.bottleneck = Bottleneck(d_model, arrangement.latents, _modules(self.blocks)[0])
            if self.position.signal != "embed":
                raise ValueError(
                    "the answering stack of a bottleneck is given nothing but positions, so they "
                    "must be marked on the vectors: use position=learned or sinusoidal"
                )
        self._require_used_position()
        if arrangement.boundary is not None:
            for layer_block in _modules(self.blocks):
                layer_block.mixer.require_document_mask()
        min_layers = max(block.mixer.min_layers for block in _modules(self.blocks))
        if num_layers < min_layers:
            raise ValueError(
                f"num_layers={num_layers} leaves mixers of the pattern unused; it needs at least "
                f"{min_layers}"
            )
        self.head = nn.Linear(d_model, num_outputs, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight

    @property
    def token_vectors(self) -> Float[Tensor, "token d_model"]:
        return self.embedding.weight

    def encode(
        self,
        inputs: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        prefix: Int[Tensor, "batch label"] | None = None,
        prefix_valid: Bool[Tensor, "batch label"] | None = None,
    ) -> tuple[Float[Tensor, "batch position d_model"], Losses]:
        require_prefix(self.arrangement, prefix)
        require_length(inputs.shape[1], self.max_length)
        vectors = self.embedded(self.embedding(inputs))
        if prefix is None:
            x, losses = _run_blocks(
                self.blocks,
                self._embed_positions(vectors),
                valid,
                documents=self.number_documents(inputs),
            )
            return self.norm(x), losses
        require_length(prefix.shape[1], self.max_length)
        memory, memory_valid, losses = self._encode_memory(vectors, valid)
        positioned = self._embed_positions(self.embedding(prefix))
        x, prefix_losses = _run_blocks(self.blocks, positioned, prefix_valid, memory, memory_valid)
        return self.norm(x), _add_losses([losses, prefix_losses])

    def start(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> Any:
        if self.encoder is None:
            return super().start(inputs, valid)
        require_length(inputs.shape[1], self.max_length)
        memory, memory_valid, _ = self._encode_memory(self.embedded(self.embedding(inputs)), valid)
        return memory, memory_valid, [None] * len(self.blocks), None

    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        require_causal(self.causal)
        require_length(at + 1, self.max_length)
        if self.encoder is not None and state is None:
            raise ValueError("an encoder-decoder steps from the state that `start` gives")
        memory, valid, states, earlier = state or (None, None, [None] * len(self.blocks), None)
        documents = self.number_documents(inputs, earlier)
        positions = torch.arange(at, at + 1, device=inputs.device)
        x = self.position.embed(self.embedding(inputs), positions)
        states_after = []
        for block, state_before in zip(_modules(self.blocks), states, strict=True):
            x, state_after = block.step(x, at, state_before, memory, valid, documents)
            states_after.append(state_after)
        return self.head(self.norm(x)), (memory, valid, states_after, documents)

    def state_size(self, length: int) -> int | None:
        if not self.causal:
            return None
        sizes = [block.state_size(length) for block in _modules(self.blocks)]
        if None in sizes:
            return None
        num_kept = sum(size for size in sizes if size is not None)
        num_kept += 0 if self.arrangement.boundary is None else length
        return num_kept + (length * self.embedding.embedding_dim if self.encoder else 0)

    def sequence_axes(self) -> Mapping[nn.Module, Axes]:
        if self.encoder is None:
            return {}
        axes: dict[nn.Module, Axes] = {self.blocks: Axes("prefix", "prefix")}
        memory: SequenceName = "inputs" if self.bottleneck is None else "latents"
        axes |= {block.cross: Axes("prefix", memory) for block in _modules(self.blocks)}
        return axes if self.bottleneck is None else {**axes, self.bottleneck: LATENTS}

    def _embed_positions(
        self, vectors: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch seq d_model"]:
        positions = torch.arange(vectors.shape[1], device=vectors.device)
        return self.dropout(self.position.embed(vectors, positions))

    def _encode_memory(
        self, vectors: Float[Tensor, "batch seq d_model"], valid: Tensor | None
    ) -> tuple[Float[Tensor, "batch source d_model"], Tensor | None, Losses]:
        """Return what the answering stack reads, which of it is no padding, and the losses."""
        assert self.encoder is not None
        memory, losses = self.encoder(vectors, self.dropout, valid)
        if self.bottleneck is None:
            return memory, valid, losses
        return self.bottleneck(memory, valid), None, losses

    def _require_used_position(self) -> None:
        """Raise ValueError for a position scheme that no mixer of the blocks uses."""
        marks = self.position.signal
        if marks not in (None, "embed", "rotate", "bias"):
            raise ValueError(
                f"{type(self.position).__name__} states signal = {marks!r}; expected 'embed', "
                "'rotate', 'bias' or None"
            )
        # Cross-attention has no position scheme, so only the blocks' mixers count.
        modules = (m for block in _modules(self.blocks) for m in block.mixer.modules())
        mixers = [m for m in modules if isinstance(m, Mixer)]
        if marks in (None, "embed") or any(marks in mixer.position_inputs for mixer in mixers):
            return
        names = sorted({type(mixer).__name__ for mixer in mixers})
        effect = {"rotate": "turns queries and keys", "bias": "shifts attention scores"}[marks]
        raise ValueError(
            f"position={type(self.position).__name__} {effect}, and no layer here asks for that "
            f"({', '.join(names)}); use position=learned, sinusoidal or none"
        )


class Encoder(nn.Module):
    """The stack that reads the inputs, where another stack answers."""

    def __init__(self, position: Position, blocks: nn.ModuleList, d_model: int) -> None:
        super().__init__()
        self.position, self.blocks = position, blocks
        self.norm = _final_norm(blocks, d_model)

    def forward(
        self,
        vectors: Float[Tensor, "batch seq d_model"],
        dropout: nn.Module,
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        """Return the memory, and the losses of the blocks."""
        positions = torch.arange(vectors.shape[1], device=vectors.device)
        x, losses = _run_blocks(
            self.blocks, dropout(self.position.embed(vectors, positions)), valid
        )
        return self.norm(x), losses


class Bottleneck(nn.Module):
    """Trained queries, `latents` of them, that read a sequence (Jaegle et al. 2021, sec. 3.1)."""

    def __init__(self, d_model: int, latents: int, block: Any) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(f"latents={latents} must be at least 1")
        self.latents = nn.Parameter(torch.randn(latents, d_model) * 0.08)
        self.cross = block.make_cross()

    def forward(
        self,
        memory: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch latent d_model"]:
        """Return the latents after they have read the memory."""
        latents = repeat(self.latents, "l d -> b l d", b=len(memory))
        return latents + self.cross.cross_attend(latents, memory, valid)[0]


def _run_blocks(
    blocks: nn.ModuleList,
    x: Float[Tensor, "batch seq d_model"],
    valid: Tensor | None,
    memory: Tensor | None = None,
    memory_valid: Tensor | None = None,
    documents: Tensor | None = None,
) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
    block_losses = []
    for block in _modules(blocks):
        x, losses = block(x, valid, memory, memory_valid, documents)
        block_losses.append(losses)
    return x, _add_losses(block_losses)


def _add_losses(losses: Sequence[Losses]) -> Losses:
    """Add up the losses of the same name."""
    total: Losses = {}
    for name, loss in (pair for block_losses in losses for pair in block_losses.items()):
        total[name] = total[name] + loss if name in total else loss
    return total


def _final_norm(blocks: nn.ModuleList, d_model: int) -> nn.Module:
    """Return a norm like that of the blocks; the identity if the last block normalises."""
    first = _modules(blocks)[0]
    return nn.Identity() if first.normalised else first.make_norm(d_model)


def _modules(blocks: nn.ModuleList) -> list[Any]:
    """Return the blocks of a list as `Any`: PyTorch types each one as a plain Module."""
    return list(blocks)
