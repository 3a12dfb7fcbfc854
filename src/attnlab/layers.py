"""Which layer of a model, and which head of it: stated by the model, and kept in the record.

Attention layers are counted from 0 in the order of the model's modules, those without attention
apart from them; heads are counted from 0 within their layer. Whoever names a layer or a head, in a
table, a page, a metric or an option, uses these numbers.
"""

from dataclasses import dataclass
from typing import Literal

SequenceName = Literal["inputs", "prefix", "latents"]
"""What the model is given, what an answering stack has before it, what a bottleneck leaves."""


@dataclass(frozen=True)
class Axes:
    """Where the queries and the keys of a layer come from."""

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


@dataclass(frozen=True)
class AttentionLayer:
    """A layer that attends: its rows of weights sum to 1."""

    index: int
    """Counted among the attention layers."""
    path: str
    """The module that attends, as in "blocks.0.mixer.attend"."""
    num_heads: int
    axes: Axes

    @property
    def name(self) -> str:
        """What it is called in tables and pages."""
        # Some records of attnlab 0.1 do not tell the numbers of their layers.
        return self.path if self.index < 0 else f"layer {self.index}"

    @property
    def source(self) -> str:
        """What the record calls its patterns."""
        return f"{self.path}.pattern"

    @property
    def heads(self) -> list[HeadRef]:
        """All of its heads."""
        return [HeadRef(self.index, head) for head in range(self.num_heads)]


@dataclass(frozen=True)
class MixingLayer:
    """A layer without attention, that shows otherwise how its outputs come from its inputs."""

    index: int
    """Counted among the layers without attention."""
    path: str
    """The mixer, as in "blocks.0.mixer"."""
    source: str
    """What the record calls its matrix, or its trace: the name of its tap "mixing"."""
    num_heads: int
    axes: Axes
    is_linear: bool
    """Whether it is linear in its values, so that it has a matrix; another one is traced."""

    @property
    def name(self) -> str:
        """What it is called in tables and pages."""
        return f"mixing layer {self.index}"
