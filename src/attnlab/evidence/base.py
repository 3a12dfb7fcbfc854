"""The base class of evidence: a measurement of a model at the end of its run, and meanwhile."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from attnlab.dataset.base import Dataset
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
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


def check_finding(evidence_name: str, finding: Any, model: Model) -> Finding:
    """Return a finding with plain numbers. Raises TypeError or ValueError for what is none."""
    if not isinstance(finding, Finding):
        type_name = type(finding).__name__
        raise TypeError(
            f"evidence.{evidence_name}: measure returned a {type_name}, expected a Finding"
        )
    scalars: dict[str, float] = {}
    for key, value in finding.scalars.items():
        try:
            scalars[key] = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"evidence.{evidence_name}: {key} is {value!r}, expected a number"
            ) from error
        if not (key and key.isprintable()):
            raise ValueError(f"evidence.{evidence_name}: the key {key!r} is no text in one line")
    existing_heads = {head for layer in model.attention_layers() for head in layer.heads}
    for key, named_head in finding.heads.items():
        if named_head.head not in existing_heads:
            raise ValueError(
                f"evidence.{evidence_name}: its head {key} is {named_head.head}, and the model has "
                "none such"
            )
    return replace(finding, scalars=scalars)
