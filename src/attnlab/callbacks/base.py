"""What keeps something of the model while it trains."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from attnlab.callbacks.clock import Clock
from attnlab.interp.subject import Subject

Row = dict[str, Any]


class Recorder(ABC):
    """Looks at the model at some steps, and returns rows for one table of the record.

    Wiring: the `subject`, the model that trains and what it is asked. A recorder of your own is a
    class and an entry of `callbacks`, with `_partial_: true`; whoever reads the record finds its
    rows as `Record.rows(table)`. Training is bit-equal with and without it.
    """

    table: ClassVar[str]
    """The table of the record that it alone writes, beside a column `step`."""
    in_identity: ClassVar[bool] = False
    """Whether a run with it is another run than one without: it changes nothing that is trained."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @abstractmethod
    def due(self, clock: Clock, step: int) -> bool:
        """Return whether it looks after this step (0: before the first)."""

    @abstractmethod
    def rows(self, step: int) -> list[Row]:
        """Look now. Raises Diverged where what is seen is no number."""
