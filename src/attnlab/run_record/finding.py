"""What an evidence found in a trained model, as the record keeps it and as a reader is told it.

Evidence states how it is shown, so that no page, table or command knows it by its name; the record
keeps that statement with the numbers, so that a reader of the record needs no code of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from attnlab.layers import HeadRef
from attnlab.run_record.forms import Name


@dataclass(frozen=True)
class NamedHead:
    """A head that an evidence chose, on validation data, for what it does."""

    head: HeadRef
    role: Name
    """What it does, as in "previous token"."""
    weight: float
    """The attention that it pays where its role says, 0 to 1."""
    without: Mapping[Name, float] = field(default_factory=dict)
    """What is left of the answers by what was taken away, as in {"head out": .1, "mean pattern":
    .4}."""

    def __post_init__(self) -> None:
        # A record that names a head before the first would be shown the last one.
        if min(self.head.layer, self.head.head) < 0:
            raise ValueError(f"{self.head} is no head: layers and heads are counted from 0")


@dataclass(frozen=True)
class Label:
    """How one number of an evidence is told."""

    number: Name
    """The key of the number, without the name of the evidence."""
    text: Name
    needs_attention: bool = False
    """Whether only a model with attention can have it."""


@dataclass(frozen=True)
class Curve:
    """Numbers PREFIX1, PREFIX2, PREFIX4, ... of an evidence, drawn over what follows the prefix."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A\w+\Z")]
    """What the figure is called in a paper's folder."""
    prefix: Name
    title: Name
    axis: Name
    ends_with: Name = ""
    """The curve whose last point ends this one too, where nothing is bounded."""


@dataclass(frozen=True)
class Presentation:
    """How a reader is shown what an evidence found."""

    labels: tuple[Label, ...] = ()
    """The numbers that stand beside a picture, in their order; others stand in tables alone."""
    opens_at: tuple[Name, ...] = ()
    """The named heads at which a picture opens: the first of them that was found."""
    taken_away: Name = ""
    """What the numbers beside a picture are without, as in "the edge is cut"; empty if nothing."""
    curves: tuple[Curve, ...] = ()
    reach: Name = ""
    """The curve whose numbers stand beside a picture of how far back heads look; empty if none."""


@dataclass(frozen=True)
class Finding:
    """What one evidence found in one trained model."""

    scalars: Mapping[Name, float] = field(default_factory=dict)
    """Numbers by their keys. The record joins them to the metrics, as EVIDENCE/KEY."""
    heads: Mapping[Name, NamedHead] = field(default_factory=dict)
    """Heads by what the evidence calls them."""
    presentation: Presentation = field(default_factory=Presentation)
