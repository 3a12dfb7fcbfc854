"""`attnlab evaluate` prints what Python finds on a split."""

import json
from collections.abc import Callable

from attnlab.analysis.evaluation_report import evaluation_report
from attnlab.cli import main
from attnlab.loaded_run import LoadedRun


def test_json_is_the_report_of_python(offer: Callable[..., LoadedRun], capsys):
    run = offer("dataset.num_test=40")
    for words, split in (([], None), (["--split", "validation"], "validation")):
        assert main(["evaluate", "untrained", *words, "--format", "json"]) == 0
        report = evaluation_report(run, split)
        assert json.loads(capsys.readouterr().out) == report.to_json()
        assert report.metrics == run.evaluate(split or "test")
        assert report.examples == len(run.dataset.splits[split or "test"])


def test_a_metric_that_is_no_number_is_null(offer: Callable[..., LoadedRun], capsys, monkeypatch):
    offer()
    monkeypatch.setattr(LoadedRun, "evaluate", lambda *_: {"loss": float("nan"), "accuracy": 0.5})
    assert main(["evaluate", "untrained", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: word)
    assert found["metrics"] == {"loss": None, "accuracy": 0.5}
