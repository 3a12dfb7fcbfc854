"""The interface of loggers, which copy a run to another tool; the run record stays the truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


class Logger(ABC):
    """Receives what an attempt of a run records, and shows it elsewhere; nothing is read back.

    Writes below the attempt's directory only, and does not change the random state.
    """

    @abstractmethod
    def start(self, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        """Start to log the attempt in `directory` of the run called `name`."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        """Log values measured at a step; no later call is for an earlier step."""

    @abstractmethod
    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        """Log a grey picture, from 0 (black) to 255."""

    @abstractmethod
    def page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Log an HTML page that needs no network; `html` builds it, and need not be called."""

    @abstractmethod
    def files(self, packed: Callable[[], Mapping[str, Path]]) -> None:
        """Log the tables of patterns and heads by their file names; called once, near the end."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Write what is buffered; `status` of the attempt is finished, failed or interrupted."""


def require(package: str, install: str) -> None:
    """Raise ValueError if the package that a logger needs is not installed."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package} needs the package {package}: pip install {install}")
