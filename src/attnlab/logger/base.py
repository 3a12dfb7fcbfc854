"""The interface of loggers, which copy a run to another tool; the run record stays the truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

TOKENS, FLOPS = "tokens", "flops"
"""The names of the axes that stand beside each step."""
PASSES = 3
"""The cost of a training step in forward passes: the backward pass costs two of them."""


@dataclass(frozen=True)
class LoggedRun:
    """The run that is logged: what it is called, what its config is, and what a step costs."""

    name: str
    """The name of the run's directory."""
    attempt: int
    """The number of the attempt that ends with the result."""
    identity: Mapping[str, Any]
    """The config that determines the run's result."""
    choices: Mapping[str, str]
    """The choice of each config group by its name, as in `model/mixer: gated_delta`."""
    sweep: str | None
    """The name of the sweep that the run belongs to."""
    tokens_per_step: int
    """Number of training tokens of an optimizer step, including padding."""
    flops_per_token: float
    """FLOPs of a forward pass per token, at the training length."""
    is_live: bool = True
    """Whether it trains while it is logged; if not, it is logged later, from its record."""

    @property
    def run_id(self) -> str:
        """The name that stands for this attempt everywhere, and is the same whenever it is sent."""
        return f"{self.name}-{self.attempt}"

    @property
    def config(self) -> dict[str, Any]:
        """The config with the names of its choices."""
        return {**self.identity, "choices": dict(self.choices)}

    def axes(self, step: int) -> dict[str, int | float]:
        """Return the training tokens and the training FLOPs up to a step.

        Training FLOPs are 3 x those of a forward pass per token x tokens.
        """
        tokens = step * self.tokens_per_step
        return {TOKENS: tokens, FLOPS: PASSES * self.flops_per_token * tokens}


class Logger(ABC):
    """Receives what an attempt of a run records, and shows it elsewhere; nothing is read back.

    Writes below the given directory only, and does not change the random state.
    """

    tool: ClassVar[str | None] = None
    """The name of the directory that it writes, and of the tool for `attnlab sync --to`; None for
    a logger that only follows runs while they train."""

    @property
    def destination(self) -> str | None:
        """The project that runs go to, where the tool has projects."""
        return None

    @property
    def is_online(self) -> bool:
        """Whether what is logged leaves this machine."""
        return False

    @abstractmethod
    def start(self, directory: Path, run: LoggedRun) -> None:
        """Start to log a run, in `directory`: that of the attempt, or another."""

    @abstractmethod
    def log_scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        """Log values measured at a step, beside its `axes`; no later call is for an earlier one."""

    @abstractmethod
    def log_picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        """Log a grey picture, from 0 (black) to 255."""

    @abstractmethod
    def log_page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Log an HTML page that needs no network; `html` builds it, and need not be called."""

    def log_summary(self, values: Mapping[str, int | float | str]) -> None:  # noqa: B027
        """Log the facts of a finished run, such as its parameters; called once, near the end.

        By default they are left out.
        """

    @abstractmethod
    def log_files(self, pack_files: Callable[[], Mapping[str, Path]]) -> None:
        """Log the tables of patterns and heads by their file names; called once, near the end."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Write what is buffered; `status` of the attempt is finished, failed or interrupted."""


def require_package(package: str, install: str) -> None:
    """Raise ValueError if the package that a logger needs is not installed."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package} needs the package {package}: pip install {install}")
