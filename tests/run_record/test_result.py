"""The result of a run goes to run.json and comes back as it was, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnlab.errors import RecordError
from attnlab.layers import HeadRef
from attnlab.run_record.finding import Finding, Label, NamedHead, Presentation
from attnlab.run_record.forms import SCHEMA, seal
from attnlab.run_record.record import find_runs
from attnlab.run_record.result import RunResult
from tests.fabricated import result
from tests.prose import refuses

PATH = Path("run.json")
RUNS = Path(__file__).parents[1] / "records/runs"
FINDINGS = {
    "recall": Finding(
        scalars={"from it": 0.75, "both": 1.0},
        heads={
            "gather": NamedHead(HeadRef(1, 3), "gathers the value", 0.9, {"head out": 0.125}),
            "previous": NamedHead(HeadRef(0, 0), "previous token", 0.5),
        },
        presentation=Presentation(
            labels=(Label("both", "both right"), Label("from it", "from it", True)),
            opens_at=("gather", "previous"),
            taken_away="the edge is cut",
        ),
    ),
    "gates": Finding(),
}
METRICS = {"test/accuracy": 0.5, "recall/from it": 0.75, "recall/both": 1.0}


def found() -> RunResult:
    return result(findings=FINDINGS, metrics=METRICS, rows={"train": 3}, lower_is_better=("loss",))


def test_a_result_with_findings_is_read_as_it_was_written():
    written = json.loads(json.dumps(found().to_json()))
    assert RunResult.from_json(written, PATH) == found()
    assert RunResult.from_json(written, PATH).to_json() == written


def test_a_number_of_an_evidence_stands_in_run_json_once():
    written = found().to_json()
    assert (written["schema"], written["status"]) == (SCHEMA, "finished")
    assert written["metrics"] == METRICS
    assert "scalars" not in written["findings"]["recall"]


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    written = found().to_json()
    change(written)
    del written["sha256"]
    return seal(written)


def of_head(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Change what the record says of a head."""
    return lambda written: change(written["findings"]["recall"]["heads"]["gather"])


def of_presentation(**keys: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda written: written["findings"]["recall"]["presentation"].update(keys)


ESCAPE = "\x1b[2J"
HARM: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no_findings": lambda written: written.update(findings=[]),
    "no_finding": lambda written: written["findings"].update(recall=3),
    "no_role": of_head(lambda head: head.pop("role")),
    "head_of_text": of_head(lambda head: head.update(head="L1H3")),
    "head_before_the_first": of_head(lambda head: head.update(head={"layer": -1, "head": 0})),
    "escape_in_a_role": of_head(lambda head: head.update(role=ESCAPE)),
    "escape_in_a_label": of_presentation(labels=[{"number": "both", "text": ESCAPE}]),
    "escape_in_a_name": lambda written: written["findings"].update({ESCAPE: {}}),
    "lacks_data_hash": lambda written: written.pop("data_hash"),
    "interrupted": lambda written: written.update(status="interrupted"),
}


@pytest.mark.parametrize("name", HARM)
def test_what_is_no_result_is_refused_with_where_it_is_wrong(name):
    with refuses(RecordError, f"runs.result.{name}"):
        RunResult.from_json(changed(HARM[name]), PATH)


def test_a_result_that_was_changed_is_refused():
    with refuses(RecordError, "runs.result.changed"):
        RunResult.from_json(found().to_json() | {"seconds": 1.0}, PATH)


def test_a_result_of_0_1_is_read_with_what_it_does_not_say_left_open():
    finished = 0
    for record in find_runs(RUNS):
        if (read := record.result) is None:
            continue
        finished += 1
        stated = json.loads((record.path / "run.json").read_text())
        assert stated["schema"] == 1
        assert (read.lower_is_better, read.config_dir, read.seconds_before) == (None, None, None)
        assert (read.rows, read.findings) == ({}, {})
        again = read.to_json()
        assert (read.choices, read.overrides) == ({}, ())
        left_open = {
            *(
                "lower_is_better",
                "seconds_before",
                "bounds",
                "config_dir",
                "rows",
                "findings",
                "choices",
                "overrides",
            ),
        }
        assert again.keys() - stated.keys() == {*left_open, "sha256"}
        told = stated.keys() - {"schema", "identity"}
        assert {key: again[key] for key in told} == {key: stated[key] for key in told}
    assert finished == 15
