"""What a part of `make gpu-check` is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

Settings = Mapping[str, Any]
"""Plain values that decide what is measured; results of other settings are not taken for these."""
Row = Mapping[str, str | float | int | None]
"""A line of a table: a value for each heading, None where there is none."""


class Given(NamedTuple):
    """What a part is measured with."""

    device: torch.device
    settings: Settings
    text: Path | None = None
    """The text that somebody has given, for the parts that train on it."""


class Found(NamedTuple):
    """What a part has measured; every row has the same headings, and notes are for the reader."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()


def nothing(given: Given) -> None:
    """Lack nothing."""


@dataclass(frozen=True)
class Part:
    """Something to measure on a GPU, in a process of its own, where it can crash alone.

    `seconds` is about what it takes on one H100, the start of its process included. `real` is for
    the GPU and `dry`, tiny, for a CPU: it shows that the code runs, and no more.
    """

    name: str
    says: str
    """What its table shows, in a sentence or two."""
    seconds: float
    real: Settings
    dry: Settings
    measure: Callable[[Given], Found]
    lacks: Callable[[Given], str | None] = nothing
    """Says why it cannot be measured here, or None."""
    resumes: bool = False
    """Whether it saves what it has when it is interrupted, and goes on from there the next time."""

    def given(self, device: torch.device, text: Path | None) -> Given:
        """Give what it is measured with: its dry settings on a CPU."""
        return Given(device, self.dry if device.type == "cpu" else self.real, text)
