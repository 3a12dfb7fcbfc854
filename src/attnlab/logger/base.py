"""A mirror of a run in somebody else's format. The run record stays the truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


class Logger(ABC):
    """Is told what a run's attempt records, and shows it elsewhere; nothing is read back from it.

    Writes below the attempt's directory only, and moves no random state.
    """

    @abstractmethod
    def start(self, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        """Begin to mirror the attempt in `directory` of the run called `name`."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        """Take some of what was measured at a step; no later call is for an earlier step."""

    @abstractmethod
    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        """Take a grey picture, from 0 (black) to 255."""

    @abstractmethod
    def page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Take a page that needs no network; it is made where it is asked for."""

    @abstractmethod
    def files(self, packed: Callable[[], Mapping[str, Path]]) -> None:
        """Take the tables of patterns and heads by the names of their files, once, near the end."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Write what is left; the attempt is finished, failed or interrupted."""


def require(package: str, install: str) -> None:
    """Raise ValueError where the package that a logger needs is not there."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package} needs the package {package}: pip install {install}")
