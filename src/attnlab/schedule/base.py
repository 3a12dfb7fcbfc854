"""The interface of every learning-rate schedule."""

from abc import ABC, abstractmethod


class Schedule(ABC):
    """Scales the optimizer's learning rate, as a pure function of the step."""

    @abstractmethod
    def scale(self, step: int, max_steps: int) -> float:
        """Return the factor for optimizer step `step`, counted from 0."""
