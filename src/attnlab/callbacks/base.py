"""The interface of recorders, which record measurements of the model while it trains."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from attnlab.callbacks.cadence import Cadence
from attnlab.interp.subject import Subject

Row = dict[str, Any]


class Recorder(ABC):
    """Measures the model at some steps, and returns rows for one table of the record.

    Wiring: the `subject`, the model in training and its inputs. Your own recorder is a class and an
    entry of `callbacks`, with `_partial_: true`; its rows are read from the record as
    `Record.rows(table)`. Training is bit-equal with and without it.
    """

    table: ClassVar[str]
    """The table of the record that only this recorder writes; it has a column `step`."""
    in_identity: ClassVar[bool] = False
    """Whether a run with it has another identity than one without: no, as training is the same."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @abstractmethod
    def is_due(self, cadence: Cadence, step: int) -> bool:
        """Return whether to record after this step (0: before the first)."""

    @abstractmethod
    def rows(self, step: int) -> list[Row]:
        """Return the rows of this step. Raises Diverged if a measured value is not finite."""
