"""What keeps something of the model while it trains."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from attnlab.callbacks.clock import Clock

Row = dict[str, Any]


class Keeper(ABC):
    """Looks at the model at the steps that the clock says, and gives rows of one table.

    Training is bit-equal with and without it.
    """

    table: ClassVar[str]

    @abstractmethod
    def due(self, clock: Clock, step: int) -> bool:
        """Whether it has to look after this step (0: before the first)."""

    @abstractmethod
    def rows(self, step: int) -> list[Row]:
        """Look now. Raises Diverged where what is seen is no number."""
