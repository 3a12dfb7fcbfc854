"""A head has done its work since the first step after which it did not stop."""

import math
from pathlib import Path

from attnlab.analysis.emergence import emergence_step, heads_since, step_of_half
from attnlab.layers import HeadRef
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.evidence_history import evidence_rows, load_evidence
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.record import Record
from tests.prose import refuses


def test_a_score_emerges_when_it_stays():
    steps = [0, 10, 20, 40]
    assert emergence_step(steps, [0.0, 0.2, 0.6, 0.9], 0.5) == 20
    assert emergence_step(steps, [0.0, 0.9, 0.1, 0.9], 0.5) == 40
    assert emergence_step(steps, [0.6, 0.9, 0.7, 0.9], 0.5) == 0
    assert emergence_step(steps, [0.0, 0.9, 0.9, 0.5], 0.5) is None
    assert emergence_step(steps, [0.0, 0.0, 0.0, math.nan], 0.5) is None
    assert emergence_step([], [], 0.5) is None
    for fault, wrong in {"fewer": [0, 10], "unordered": [0, 20, 10, 40]}.items():
        with refuses(ValueError, f"evidence.circuits.emergence.{fault}"):
            emergence_step(wrong, [0.0, 0.2, 0.6, 0.9], 0.5)


def test_half_of_the_last_value_is_what_a_number_must_stay_above():
    assert step_of_half({0: 0.1, 10: 0.5, 20: 0.3, 30: 0.8}) == 30
    assert step_of_half({30: 0.8, 20: 0.5, 10: 0.1}) == 20
    assert step_of_half({0: 0.5, 10: 0.0}) is None


def record_of(path: Path, named: dict[int, tuple[HeadRef, float]]) -> Record:
    """Write a run whose evidence named these heads with these weights, by step."""
    attempt = Attempt.claim(path, {"seed": 0})
    for step, (head, weight) in named.items():
        finding = Finding(
            {"right": weight, "nothing": math.nan}, {"it": NamedHead(head, "points", weight)}
        )
        attempt.append("evidence", evidence_rows(step, "pronoun", finding))
    attempt.close()
    return Record(path)


def test_a_head_works_since_evidence_names_it_and_no_other(tmp_path):
    early, late = HeadRef(0, 1), HeadRef(11, 3)
    named = {0: (late, 0.7), 10: (early, 0.9), 20: (late, 0.3), 30: (late, 0.5), 40: (late, 0.8)}
    record = record_of(tmp_path / "run", named)
    assert heads_since(record) == {"pronoun": {"it": 30}}
    history = load_evidence(record)["pronoun"]
    assert history.heads["it"] == named
    # What is no finite number is left out, and a run without such rows has no history.
    assert history.scalars == {"right": {step: weight for step, (_, weight) in named.items()}}
    assert heads_since(record_of(tmp_path / "other", {})) == {}
