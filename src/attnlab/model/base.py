"""The interface of every model: tokens in, logits at the asked positions out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnlab.attend import Attend
from attnlab.ffn.base import FFN, Losses
from attnlab.ffn.expert_choice import ExpertChoice
from attnlab.ffn.moe import MoE
from attnlab.layers import AttentionLayer, Axes, ExpertLayer, LSTMLayer, MixingLayer
from attnlab.mixer.base import Mixer, modules_within
from attnlab.tap import Mixing, Tap

DIRECTIONS = ("forwards", "backwards")
"""The names of the two directions of a layer, each a module that reads the sequence that way."""


@dataclass(frozen=True)
class Arrangement:
    """Which positions may see which: set by the objective, and what a model builds its stacks from.

    `causal`: the answering stack sees only the position itself and earlier ones. `encoder`: the
    answering stack works on the prefix, and also reads the output of an encoder of the inputs.
    `latents`: the encoder's output is first compressed to this number of vectors. `boundary`: the
    input token that begins a document; no position sees another document.
    """

    causal: bool
    encoder: bool = False
    latents: int | None = None
    boundary: int | None = None


DECODER, ENCODER = Arrangement(causal=True), Arrangement(causal=False)
ENCODER_DECODER = Arrangement(causal=True, encoder=True)


class Model(nn.Module, ABC):
    """A stack with an embedding below and a linear head above.

    Wiring of every model: the vocabulary's size, the number of outputs, the longest sequence, and
    the arrangement.
    """

    arrangement: Arrangement
    head: nn.Module
    embedded: Tap
    """The tap of the inputs' token vectors, before the position scheme changes them."""
    network_depth: int
    """Hidden layers, the output layer, and the embedding layer."""
    max_length: int | None = None
    """Tokens in the longest sequence that it can read; None if there is no limit."""

    @property
    def token_vectors(self) -> Float[Tensor, "token d_model"] | None:
        """The embedding vector of each input token; None in a model without a token table."""
        return None

    @property
    def causal(self) -> bool:
        return self.arrangement.causal

    def forward(
        self,
        inputs: Int[Tensor, "batch seq"],
        at: Int[Tensor, "batch label"] | None = None,
        valid: Bool[Tensor, "batch seq"] | None = None,
        prefix: Int[Tensor, "batch label"] | None = None,
        prefix_valid: Bool[Tensor, "batch label"] | None = None,
    ) -> tuple[Float[Tensor, "batch label output"], Losses]:
        """Return the logits at the positions `at` (None: at every one), and the losses.

        With an encoder, these are positions of the `prefix`.
        """
        x, losses = self.encode(inputs, valid, prefix, prefix_valid)
        if at is not None:
            x = x.gather(1, repeat(at, "b l -> b l d", d=x.shape[-1]))
        return self.head(x), losses

    @abstractmethod
    def encode(
        self,
        inputs: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        prefix: Int[Tensor, "batch label"] | None = None,
        prefix_valid: Bool[Tensor, "batch label"] | None = None,
    ) -> tuple[Float[Tensor, "batch position width"], Losses]:
        """Return the vector that the head reads at every position, and the losses."""

    def start(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> Any:
        """Return the state from which a model with an encoder takes its first `step`."""
        raise ValueError(f"this {type(self).__name__} has no encoder that could read the inputs")

    @abstractmethod
    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        """Return a causal model's logits for one more token, and the state after it.

        `state` holds what it needs of the earlier tokens; its tensors have the batch first. With an
        encoder, the first state is what `start` returns.
        """

    @abstractmethod
    def state_size(self, length: int) -> int | None:
        """Count the numbers kept per sequence after `length` tokens; None if it cannot step.

        With an encoder, `length` is the number of inputs as well as that of prefix tokens.
        """

    def number_documents(
        self, inputs: Int[Tensor, "batch seq"], earlier: Int[Tensor, "batch earlier"] | None = None
    ) -> Int[Tensor, "batch position"] | None:
        """Return the number of each position's document, after the `earlier` ones.

        None where positions see all documents.
        """
        if self.arrangement.boundary is None:
            return None
        numbers = (inputs == self.arrangement.boundary).cumsum(dim=1)
        return (
            numbers if earlier is None else torch.cat((earlier, earlier[:, -1:] + numbers), dim=1)
        )

    def sequence_axes(self) -> Mapping[nn.Module, Axes]:
        """Return the sequences that parts of the model work on, where these are not the inputs.

        A module inside of a part works on the same sequences, unless it is stated itself.
        """
        return {}

    def axes_at(self, path: str) -> Axes:
        """Return the sequences of queries and of keys that the module at a path works on.

        Both are the inputs, except in a model with an encoder: there the answering stack has the
        prefix as both, and its cross-attention has the prefix as queries.
        """
        stated, axes, names = self.sequence_axes(), Axes(), path.split(".")
        for depth in range(1, len(names) + 1):
            axes = stated.get(self.get_submodule(".".join(names[:depth])), axes)
        return axes

    def attention_layers(self) -> list[AttentionLayer]:
        """List the layers that attend, in the order of the model's modules."""
        attends = [(path, m) for path, m in self._read_modules() if isinstance(m, Attend)]
        return [
            AttentionLayer(index, path, attend.num_heads, self.axes_at(path))
            for index, (path, attend) in enumerate(attends)
        ]

    def mixing_layers(self) -> list[MixingLayer]:
        """List the layers whose mixers do not attend, in the order of the model's modules.

        A mixer that is linear in its values gives a layer for each of its `Mixing` taps (two where
        it is bidirectional); any other mixer is one layer.
        """
        layers: list[MixingLayer] = []
        for path, module in self._read_modules():
            if isinstance(module, Attend):
                continue
            owner_path, source, num_heads = path, f"{path}.influence", 1
            if is_linear := isinstance(module, Mixing):
                owner_path, source, num_heads = path.rpartition(".")[0], path, module.num_heads
            axes = self.axes_at(owner_path)
            layers.append(MixingLayer(len(layers), owner_path, source, num_heads, axes, is_linear))
        return layers

    def expert_layers(self) -> list[ExpertLayer]:
        """List the mixtures of experts, in the order of the model's modules."""
        mixtures = [(n, m) for n, m in self.named_modules() if isinstance(m, MoE | ExpertChoice)]
        return [
            ExpertLayer(index, path, mixture.num_experts)
            for index, (path, mixture) in enumerate(mixtures)
        ]

    def lstm_layers(self) -> list[LSTMLayer]:
        """List the cells of each LSTM and direction, in the order of the model's modules.

        Two directions that stand beside each other are one layer.
        """
        direction_of_cells: dict[nn.Module, tuple[str, bool]] = {}
        for path, module in self.named_modules():
            for name, child in module.named_children():
                if name in DIRECTIONS:
                    is_reversed = name == DIRECTIONS[1]
                    direction_of_cells |= dict.fromkeys(child.modules(), (path, is_reversed))
        index_of_layer: dict[str, int] = {}
        layers = []
        for path, cells in self.named_modules():
            if isinstance(cells, nn.LSTM):
                layer_path, is_reversed = direction_of_cells.get(cells, (path, False))
                index = index_of_layer.setdefault(layer_path, len(index_of_layer))
                layers.append(LSTMLayer(index, path, is_reversed))
        return layers

    def _read_modules(self) -> list[tuple[str, Attend | Mixing | Mixer]]:
        """List each mixer's `pattern_modules` with their paths; of a traced mixer, itself.

        An `Attend` that the model holds outside of its mixers is one of them.
        """
        offered = modules_within(self)
        traced = {path: m for path, m in self._mixers() if not m.pattern_modules()}
        modules = {**offered, **traced}
        return [(path, modules[path]) for path, _ in self.named_modules() if path in modules]

    def _mixers(self) -> list[tuple[str, Mixer]]:
        """List the mixers that are not inside of another one, with their paths."""
        mixers: list[tuple[str, Mixer]] = []
        nested: set[nn.Module] = set()
        for path, module in self.named_modules():
            if isinstance(module, Mixer) and module not in nested:
                mixers.append((path, module))
                nested |= set(module.modules())
        return mixers


def parameters(model: nn.Module) -> int:
    """Count all trained parameters."""
    return sum(weights.numel() for weights in model.parameters())


def active_parameters(model: nn.Module) -> int:
    """Count the trained parameters that one token uses."""
    return parameters(model) - sum(m.idle_parameters for m in model.modules() if isinstance(m, FFN))


def require_causal(causal: bool) -> None:
    """Raise ValueError for a step of a model that is not causal."""
    if not causal:
        raise ValueError(
            "a bidirectional model sees the whole sequence and cannot run step by step"
        )


def require_length(length: int, max_length: int | None) -> None:
    """Raise ValueError for a sequence longer than the model was built for."""
    if max_length is not None and length > max_length:
        raise ValueError(
            f"a sequence of {length} tokens exceeds the model's {max_length} positions"
        )


def require_prefix(arrangement: Arrangement, prefix: Tensor | None) -> None:
    """Raise ValueError for a prefix without an encoder, or an encoder without a prefix."""
    if arrangement.encoder != (prefix is not None):
        requirement = "needs a prefix" if arrangement.encoder else "takes no prefix"
        raise ValueError(f"the model {requirement}: its arrangement is {arrangement}")


def embedding(num_tokens: int, d_model: int, std: float) -> nn.Embedding:
    """Build a token table whose vectors start from N(0, std)."""
    table = nn.Embedding(num_tokens, d_model)
    torch.nn.init.normal_(table.weight, std=std)
    return table
