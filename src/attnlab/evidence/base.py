"""What every evidence is: a question to a trained model, asked when its run ends."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from attnlab.dataset.base import Dataset
from attnlab.interp.subject import Subject
from attnlab.objective.base import Objective
from attnlab.run_record.finding import Finding, NamedHead, Presentation


class Evidence(ABC):
    """Measures something of a trained model, and states how a reader is shown it.

    Wiring: the `subject`, whose data it asks about. What it measures stands in the record's metrics
    as EVIDENCE/KEY, and whatever shows records reads `presentation` there. Test data never choose:
    a head is chosen on validation, and measured where results are reported.
    """

    objective_type: ClassVar[type[Objective]] = Objective
    """The objective that it can ask about."""
    dataset_type: ClassVar[type[Dataset]] = Dataset
    """The data that it can ask about."""
    presentation: ClassVar[Presentation] = Presentation()
    lower_is_better: ClassVar[Sequence[str]] = ()
    """Of which of its numbers less is better: names, or patterns of names."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @abstractmethod
    def measure(self) -> Finding:
        """Measure the subject. Raises ValueError for data in which there is nothing to measure."""

    @classmethod
    def finding(
        cls, scalars: Mapping[str, float], heads: Mapping[str, NamedHead] | None = None
    ) -> Finding:
        """Return what was found, with how it is shown."""
        return Finding(scalars, heads or {}, cls.presentation)

    @classmethod
    def from_first_records(cls, scalars: Mapping[str, float]) -> Finding:
        """Return the finding of a record of 0.1, where heads are numbers among the others."""
        return cls.finding(scalars)
