"""What the evidence of a run found while it trained, over its steps."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from attnlab.layers import HeadRef
from attnlab.run_record.finding import Finding
from attnlab.run_record.read import refuse_damaged_rows
from attnlab.run_record.record import Record

TABLE = "evidence"


class HeadAtStep(NamedTuple):
    """The head that an evidence named after a step, and its attention weight."""

    head: HeadRef
    weight: float


@dataclass(frozen=True)
class EvidenceHistory:
    """The numbers and heads of one evidence, each by its name and step."""

    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    heads: dict[str, dict[int, HeadAtStep]] = field(default_factory=dict)


def evidence_rows(step: int, evidence: str, finding: Finding) -> list[dict[str, Any]]:
    """Return a finding as rows of the record: of each number, and of each head its weight.

    What is no finite number is left out, as it is at the end of a run.
    """
    values = [(name, value, "") for name, value in finding.scalars.items()]
    values += [(name, head.weight, str(head.head)) for name, head in finding.heads.items()]
    return [
        {"step": step, "evidence": evidence, "name": name, "value": value, "head": head}
        for name, value, head in values
        if isfinite(value)
    ]


def load_evidence(record: Record) -> dict[str, EvidenceHistory]:
    """Load what each evidence found, by its name; empty where it was measured at the end alone."""
    histories: dict[str, EvidenceHistory] = {}
    with refuse_damaged_rows(record.path, TABLE):
        for row in record.rows(TABLE).to_pylist():
            history = histories.setdefault(row["evidence"], EvidenceHistory())
            step, name, value = row["step"], row["name"], float(row["value"])
            if row["head"]:
                head_at_step = HeadAtStep(HeadRef.from_name(row["head"]), value)
                history.heads.setdefault(name, {})[step] = head_at_step
            else:
                history.scalars.setdefault(name, {})[step] = value
    return histories
