"""What every model is: tokens in, logits at the asked positions out."""

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
from attnlab.layers import AttentionLayer, Axes, MixingLayer
from attnlab.mixer.base import Mixer
from attnlab.tap import Mixing, Tap


@dataclass(frozen=True)
class Arrangement:
    """Who may see whom: the objective's word, from which a family builds its stacks.

    `causal`: the stack that answers sees the earlier positions only. `encoder`: it also reads what
    an encoder made of the inputs, and its own are the prefix. `latents`: that memory passes
    through so many vectors.
    """

    causal: bool
    encoder: bool = False
    latents: int | None = None


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
    """The vectors of the inputs, before any position is marked."""
    network_depth: int
    """Hidden layers, the output layer, and the embedding layer."""
    max_length: int | None = None
    """Tokens in the longest sequence that it reads; None where any length will do."""

    @property
    def token_vectors(self) -> Float[Tensor, "token d_model"] | None:
        """The vector of each token that it reads; None where tokens have none of their own."""
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
        """Read the model out at the positions `at` (None: at every one).

        With an encoder, every position of the `prefix` answers.
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
        """Give the vector that the head reads, at every position."""

    def start(
        self, inputs: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"] | None = None
    ) -> Any:
        """Give the state from which a model with an encoder takes its first `step`."""
        raise ValueError(f"this {type(self).__name__} has no encoder that could read the inputs")

    @abstractmethod
    def step(
        self, inputs: Int[Tensor, "batch 1"], at: int, state: Any = None
    ) -> tuple[Float[Tensor, "batch 1 output"], Any]:
        """Read one more token of a causal model; `state` holds what it needs of earlier ones.

        Its tensors have the batch first. With an encoder, it begins as what `start` gives.
        """

    @abstractmethod
    def state_size(self, length: int) -> int | None:
        """Count the numbers kept per sequence after `length` tokens; None if it cannot step.

        With an encoder, after as many of the inputs as well.
        """

    def stated_axes(self) -> Mapping[nn.Module, Axes]:
        """Return which sequences the parts of the model work on, where these are not the inputs.

        What stands inside of a part works on the same, unless it is stated itself.
        """
        return {}

    def axes_at(self, path: str) -> Axes:
        """Return which sequences the module at a path works on: what reads what there.

        Queries and keys are the inputs, but in a model with an encoder: what answers has the prefix
        for queries, and what stands between reads the one with the other.
        """
        stated, axes, names = self.stated_axes(), Axes(), path.split(".")
        for depth in range(1, len(names) + 1):
            axes = stated.get(self.get_submodule(".".join(names[:depth])), axes)
        return axes

    def attention_layers(self) -> list[AttentionLayer]:
        """List the layers that attend: every `Attend`, in the order of the model's modules."""
        attending = [(n, m) for n, m in self.named_modules() if isinstance(m, Attend)]
        return [
            AttentionLayer(index, path, attend.num_heads, self.axes_at(path))
            for index, (path, attend) in enumerate(attending)
        ]

    def mixing_layers(self) -> list[MixingLayer]:
        """List the layers whose mixers do not attend, in the order of the model's modules.

        One that is linear in its values has a layer for each `Mixing` tap, as where it reads both
        ways; any other one is a layer as a whole.
        """
        layers: list[MixingLayer] = []
        for path, mixer in self._mixers():
            inside = dict(mixer.named_modules(prefix=path))
            if any(isinstance(module, Attend) for module in inside.values()):
                continue
            linear = [
                (holder, f"{holder}.{name}", tap.num_heads)
                for holder, module in inside.items()
                for name, tap in module.named_children()
                if isinstance(tap, Mixing)
            ]
            for holder, source, num_heads in linear or [(path, f"{path}.influence", 1)]:
                axes = self.axes_at(path)
                layers.append(
                    MixingLayer(len(layers), holder, source, num_heads, axes, bool(linear))
                )
        return layers

    def _mixers(self) -> list[tuple[str, Mixer]]:
        """List the mixers that are not inside of another one."""
        mixers: list[tuple[str, Mixer]] = []
        inside: set[nn.Module] = set()
        for path, module in self.named_modules():
            if isinstance(module, Mixer) and module not in inside:
                mixers.append((path, module))
                inside |= set(module.modules())
        return mixers


def parameters(model: nn.Module) -> int:
    """Count all trained numbers."""
    return sum(weights.numel() for weights in model.parameters())


def active_parameters(model: nn.Module) -> int:
    """Count the trained numbers that one token uses."""
    return parameters(model) - sum(m.idle_parameters for m in model.modules() if isinstance(m, FFN))


def require_causal(causal: bool) -> None:
    """Refuse to step through a model that sees the future."""
    if not causal:
        raise ValueError(
            "a bidirectional model sees the whole sequence and cannot run step by step"
        )


def require_length(length: int, max_length: int | None) -> None:
    """Refuse a sequence longer than the model was built for."""
    if max_length is not None and length > max_length:
        raise ValueError(
            f"a sequence of {length} tokens exceeds the model's {max_length} positions"
        )


def require_prefix(arrangement: Arrangement, prefix: Tensor | None) -> None:
    """Refuse a prefix where nothing reads it, and an encoder-decoder without one."""
    if arrangement.encoder != (prefix is not None):
        there = "needs a prefix" if arrangement.encoder else "takes no prefix"
        raise ValueError(f"the model {there}: its arrangement is {arrangement}")


def embedding(num_tokens: int, d_model: int, std: float) -> nn.Embedding:
    """Make a token table whose vectors start from N(0, std)."""
    table = nn.Embedding(num_tokens, d_model)
    torch.nn.init.normal_(table.weight, std=std)
    return table
