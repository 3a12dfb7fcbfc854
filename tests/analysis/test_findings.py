"""What evidence found is read of every record, and nothing foreign is imported for it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from attnlab.analysis.findings import read_findings
from attnlab.errors import RecordError
from attnlab.layers import HeadRef
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.record import Record, find_runs
from tests.fabricated import result, write
from tests.prose import says

RUNS = Path(__file__).parents[1] / "records/runs"
RECALL = "attnlab.evidence.recall.RecallCircuit"
CIRCUIT = {"read": 0.86, "read_layer": 1.0, "read_head": 2.0, "read_behind": 1.0, "whole": 1.0}
CIRCUIT |= {"gather": 0.7, "gather_layer": 0.0, "gather_head": 3.0, "previous": 0.66}
CIRCUIT |= {"without_read": 0.02, "without_read_mean": 0.14}
CIRCUIT |= {"without_gather": 0.03, "without_gather_mean": 0.99}
"""What a run of 0.1 kept of `evidence=recall`."""


def recorded(path: Path, target: Any, name: str = "circuit", **changed: Any) -> Record:
    """Write a finished run of 0.1 with what an evidence measured."""
    metrics = {f"{name}/{key}": value for key, value in {**CIRCUIT, **changed}.items()}
    content = result(metrics={"test/accuracy": 0.5, **metrics})
    content.identity["evidence"] = {name: {"_target_": target, "_partial_": True}}  # pyright: ignore[reportIndexIssue]
    return Record(write(path, "run", content))


def test_the_heads_of_a_record_of_0_1_are_those_that_its_metrics_number():
    named = 0
    for record in find_runs(RUNS):
        if record.result is None:
            continue
        asked = record.identity["evidence"]
        metrics = record.result.metrics
        found = read_findings(record.result)
        assert list(found) == list(asked)
        for evidence, finding in found.items():
            for name, head in finding.heads.items():
                prefix = f"{evidence}/" + ("" if name == "it" else f"{name}_")
                number = (metrics[f"{prefix}layer"], metrics[f"{prefix}head"])
                assert (head.head.layer, head.head.head) == number
                assert head.weight == metrics[f"{prefix}right"]
                assert head.without == {"edge cut": metrics[f"{prefix}cut_right"]}
                named += 1
            for key, value in finding.scalars.items():
                assert metrics[f"{evidence}/{key}"] == value
                assert not key.endswith(("layer", "head"))
    assert named == 9


@pytest.mark.parametrize(
    ("previous", "role"), [(0.66, "previous token"), (0.25, "gathers")], ids=["previous", "pair"]
)
def test_heads_have_the_role_that_their_weight_says(tmp_path, previous, role):
    found = read_findings(recorded(tmp_path, RECALL, previous=previous).result)["circuit"]
    assert found.heads == {
        "read": NamedHead(
            HeadRef(1, 2), "match and read", 0.86, {"head out": 0.02, "mean pattern": 0.14}
        ),
        "gather": NamedHead(HeadRef(0, 3), role, 0.7, {"head out": 0.03, "mean pattern": 0.99}),
    }
    assert found.presentation.opens_at == ("read",)


def test_what_the_record_states_is_taken_as_it_stands():
    stated = {"own": Finding({"x": 1.0}, {"best": NamedHead(HeadRef(0, 1), "looks", 0.5)})}
    assert read_findings(result(findings=stated)) == stated


def test_an_unfinished_run_has_none():
    (going,) = (record for record in find_runs(RUNS) if record.state == "interrupted")
    assert read_findings(going.result) == {}


@pytest.mark.parametrize(
    "target",
    [
        "tabnanny.check",
        "attnlab.evidence",
        "attnlab.run_record.record.Record",
        "attnlab_own.A",
        3,
        None,
    ],
)
def test_nothing_foreign_is_imported(tmp_path, target):
    sys.modules.pop("tabnanny", None)
    assert read_findings(recorded(tmp_path, target).result) == {}
    assert "tabnanny" not in sys.modules


def test_numbers_that_cannot_be_read_are_named(tmp_path):
    wrong = {
        "class": recorded(tmp_path / "a", "attnlab.evidence.none.Nothing"),
        "kind": recorded(tmp_path / "b", "attnlab.evidence.recall.EdgeWeights"),
        "lacking": recorded(
            tmp_path / "c", "attnlab.evidence.heads.StrongestHeads", sink_layer=0.0
        ),
    }
    for name, record in wrong.items():
        with pytest.raises(RecordError) as raised:
            read_findings(record.result, record.name)
        says(f"analysis.findings.{name}", raised.value)
