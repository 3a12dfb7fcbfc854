"""The base class of evidence: a measurement of a trained model at the end of its run."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from attnlab.dataset.base import Dataset
from attnlab.interp.subject import Subject
from attnlab.objective.base import Objective
from attnlab.run_record.finding import Finding, NamedHead, Presentation

MOST_WEIGHT = 0.5
"""More weight than on all other keys together: above it, a head is named by where it attends.

Our choice: the sources rank heads and set no number.
"""


class Evidence(ABC):
    """Measures something of a trained model, and states how a reader is shown it.

    Wiring: the `subject`, whose data it asks about. Its numbers are in the record's metrics as
    EVIDENCE/KEY, and pages and tables read `presentation` from the record. Test data select
    nothing: a head is selected on validation, and measured on the reported split.
    """

    objective_type: ClassVar[type[Objective]] = Objective
    """The type of objective that it can measure."""
    dataset_type: ClassVar[type[Dataset]] = Dataset
    """The type of dataset that it can measure."""
    presentation: ClassVar[Presentation] = Presentation()
    lower_is_better: ClassVar[Sequence[str]] = ()
    """Its numbers of which less is better: names, or patterns of names."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The ranges of its numbers, by names or patterns of names; intervals stay inside."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @abstractmethod
    def measure(self) -> Finding:
        """Measure the subject. Raises ValueError for data without anything to measure."""

    @classmethod
    def compatibility_faults(cls, objective: Objective, dataset: Dataset) -> Iterator[str]:
        """Yield the reasons why it cannot measure this objective or dataset."""
        for name, component, expected_type in (
            ("objective", objective, cls.objective_type),
            ("dataset", dataset, cls.dataset_type),
        ):
            if not isinstance(component, expected_type):
                kind = type(component).__name__
                yield f"it measures a {expected_type.__name__}, and {name} is a {kind}"

    @classmethod
    def finding(
        cls, scalars: Mapping[str, float], heads: Mapping[str, NamedHead] | None = None
    ) -> Finding:
        """Return the numbers and heads with their presentation."""
        return Finding(scalars, heads or {}, cls.presentation)

    @classmethod
    def finding_from_old_record(cls, scalars: Mapping[str, float]) -> Finding:
        """Return the finding of a record of attnlab 0.1, which has heads as plain numbers."""
        return cls.finding(scalars)
