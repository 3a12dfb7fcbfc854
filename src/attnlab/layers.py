"""References to the layers and heads of a model, for the model, the record and every output.

Layers of each kind (attention, mixing without attention, experts, LSTM) are counted from 0, always
in the order of the model's modules: with an encoder, the answering stack comes first. Heads are
counted from 0 within their layer. Every table, page, metric and option uses these numbers.
"""

import re
from dataclasses import dataclass
from typing import Literal

SequenceName = Literal["inputs", "prefix", "latents"]
"""The input sequence, the prefix of a decoder, the latents of a bottleneck."""


@dataclass(frozen=True)
class Axes:
    """The sequences of a layer's queries and keys."""

    queries: SequenceName = "inputs"
    keys: SequenceName = "inputs"

    @property
    def crosses(self) -> bool:
        """Whether one sequence reads another."""
        return self.queries != self.keys


@dataclass(frozen=True, order=True)
class HeadRef:
    """A head of an attention layer."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def from_name(cls, name: str) -> "HeadRef":
        """Return the head with a name such as L1H2. Raises ValueError for another text."""
        match = re.fullmatch(r"L(\d+)H(\d+)", name, re.ASCII)
        if match is None:
            raise ValueError(f"{name!r} names no head; expected a name such as L1H2")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer: the rows of its pattern sum to 1."""

    index: int
    """Its index among the attention layers."""
    path: str
    """The path of its `Attend` module, as in "blocks.0.mixer.attend"."""
    num_heads: int
    axes: Axes

    @property
    def number(self) -> int | None:
        """The index, or None where it is unknown."""
        # Some records of attnlab 0.1 do not tell the numbers of their layers: their index is -1.
        return None if self.index < 0 else self.index

    @property
    def name(self) -> str:
        """Its name in tables and pages."""
        return self.path if self.number is None else f"layer {self.number}"

    @property
    def source(self) -> str:
        """The name of its patterns in the record."""
        return f"{self.path}.pattern"

    @property
    def heads(self) -> list[HeadRef]:
        """Its heads."""
        return [HeadRef(self.index, head) for head in range(self.num_heads)]


@dataclass(frozen=True)
class MixingLayer:
    """A layer without attention, whose mixing is shown by a matrix or a trace."""

    index: int
    """Its index among the layers without attention."""
    path: str
    """The path of the mixer, as in "blocks.0.mixer"."""
    source: str
    """The name of its matrix or trace in the record: that of its tap "mixing"."""
    num_heads: int
    axes: Axes
    is_linear: bool
    """Whether it is linear in its values and so has a matrix; if not, it is traced."""

    @property
    def name(self) -> str:
        """Its name in tables and pages."""
        return f"mixing layer {self.index}"


Layer = AttentionLayer | MixingLayer
"""A layer that moves information between positions, of which a pattern is recorded."""


@dataclass(frozen=True)
class ExpertLayer:
    """A mixture of experts."""

    index: int
    """Its index among the layers of experts."""
    path: str
    """The path of the feed-forward network, as in "blocks.0.ffn"."""
    num_experts: int


@dataclass(frozen=True)
class LSTMLayer:
    """An LSTM layer, or one of its two directions."""

    index: int
    """Its index among the LSTM layers, which both directions share."""
    path: str
    """The path of the cells, as in "layers.0.forwards"."""
    is_reversed: bool
    """Whether it reads the sequence backwards."""

    @property
    def name(self) -> str:
        """Its name in metrics."""
        return f"layer{self.index}{'_backwards' if self.is_reversed else ''}"
