"""What an evidence found in a trained model, and how it is presented.

Evidence states its presentation, so that no page, table or command depends on its name; the record
stores it with the numbers, so that a reader of the record does not need the evidence's code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from attnlab.layers import HeadRef
from attnlab.run_record.forms import Name


@dataclass(frozen=True)
class NamedHead:
    """A head that an evidence selected by what it does on validation data."""

    head: HeadRef
    role: Name
    """What it does, as in "previous token"."""
    weight: float
    """Its attention weight at the positions of its role, 0 to 1."""
    without: Mapping[Name, float] = field(default_factory=dict)
    """The accuracy of answers after each ablation, as in {"head out": .1, "mean pattern": .4}."""

    def __post_init__(self) -> None:
        # A negative number in a damaged record would index heads from the end.
        if min(self.head.layer, self.head.head) < 0:
            raise ValueError(f"{self.head} is no head: layers and heads are counted from 0")


@dataclass(frozen=True)
class Label:
    """The label of one number of an evidence."""

    number: Name
    """The key of the number, without the name of the evidence."""
    text: Name
    needs_attention: bool = False
    """Whether only a model with attention has this number."""


@dataclass(frozen=True)
class Curve:
    """Numbers PREFIX1, PREFIX2, PREFIX4, ... of an evidence, drawn over the number in the key."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A\w+\Z")]
    """The file name of the figure in a paper's folder."""
    prefix: Name
    title: Name
    axis: Name
    ends_with: Name = ""
    """The prefix of the curve whose last point, the unbounded case, is also the last one here."""


@dataclass(frozen=True)
class Presentation:
    """How the finding of an evidence is presented to a reader."""

    labels: tuple[Label, ...] = ()
    """The numbers shown beside a picture, in their order; all others are shown in tables only."""
    opens_at: tuple[Name, ...] = ()
    """Names of heads: a picture opens at the first of them that the finding has."""
    taken_away: Name = ""
    """What is ablated for the numbers beside a picture, as in "the edge is cut"; empty if none."""
    curves: tuple[Curve, ...] = ()
    reach: Name = ""
    """The curve shown beside a picture of how far back heads look; empty if none."""


@dataclass(frozen=True)
class Finding:
    """What one evidence found in one trained model."""

    scalars: Mapping[Name, float] = field(default_factory=dict)
    """Numbers by their keys. In the record they are metrics, as EVIDENCE/KEY."""
    heads: Mapping[Name, NamedHead] = field(default_factory=dict)
    """Heads by their names in the evidence."""
    presentation: Presentation = field(default_factory=Presentation)
