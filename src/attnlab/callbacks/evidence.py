"""The recorder of what the evidence of a run finds while it trains."""

from collections.abc import Mapping

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.cadence import Cadence
from attnlab.evidence.base import Evidence, check_finding
from attnlab.interp.observe import isolated_evaluation
from attnlab.interp.subject import Subject
from attnlab.run_record.evidence_history import TABLE, evidence_rows


class EvidenceRecorder(Recorder):
    """Measures each evidence of the run, so that a reader sees since when a head does its work.

    Wiring: the `evidence` of the config by name. It has no entry in `callbacks`: the section
    `evidence` says what is measured, and `callbacks.cadence.evidence_every` when.
    """

    table = TABLE

    def __init__(self, subject: Subject, evidence: Mapping[str, Evidence]) -> None:
        super().__init__(subject)
        self.evidence = evidence

    def is_due(self, cadence: Cadence, step: int) -> bool:
        return cadence.measures_evidence(step)

    def rows(self, step: int) -> list[Row]:
        rows = []
        for name, evidence in self.evidence.items():
            # An evidence may draw at random and may forget to restore the mode of the model.
            with isolated_evaluation(self.subject.model):
                finding = check_finding(name, evidence.measure(), self.subject.model)
            rows += evidence_rows(step, name, finding)
        return rows
