"""A report of heads is of the numbers in the records, and averages heads once they are matched."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from attnlab.analysis.head_drift import compute_drifts, compute_mean_drifts
from attnlab.analysis.head_report import DRIFT, head_histories, head_report
from attnlab.analysis.run_list import list_runs
from attnlab.analysis.select import select_runs
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer, Axes
from attnlab.run_record import head_scores
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.pattern_table import TABLE, Pattern, PatternWeights, probe_names
from attnlab.run_record.record import Record, find_runs
from tests.fabricated import as_first_recorded, result
from tests.prose import refuses

RUNS = Path(__file__).parents[1] / "records/runs"
LAYER = AttentionLayer(0, "blocks.0.mixer.attend", 4, Axes())
HEADS = np.eye(5, dtype=np.float32)[:4, None].repeat(5, axis=1)
"""Each head looks at one key."""


def seed(path: Path, seed: int, order: Sequence[int], **fields) -> Record:
    """Write a finished run whose heads are those of another one in another order."""
    content = result("multihead", seed=seed, **fields)
    attempt = Attempt.claim(path / f"run-{len(list(path.glob('*')))}", content.identity)
    pattern = Pattern(
        9, "a", LAYER, list("abcde"), list(range(5)), 4, PatternWeights(HEADS[list(order)])
    )
    attempt.append(TABLE, [pattern.to_row()])
    scores = [[0.1, 0.2, 0.6, 0.9][head] for head in order]
    attempt.append(head_scores.TABLE, [head_scores.measure_row(9, LAYER, "previous", scores)])
    attempt.finish(content)
    attempt.close()
    return Record(attempt.path.parents[1])


def moving(path: Path, kept: Sequence[Sequence[int]]) -> Record:
    """Write a run of one probe for each list of kept heads, which all turn away at step 4."""
    attempt = Attempt.claim(path, {"seed": 0})
    for step, key in ((0, 0), (2, 0), (4, 1)):
        weights = np.zeros((4, 5, 5), dtype=np.float32)
        weights[..., key] = 1
        for probe, heads in enumerate(kept):
            about = (step, str(probe), LAYER, list("abcde"), list(range(5)), 4)
            attempt.append(
                TABLE, [Pattern(*about, PatternWeights(weights)).select_heads(heads).to_row()]
            )
    attempt.append(head_scores.TABLE, [head_scores.measure_row(4, LAYER, "sink", [0.0] * 4)])
    attempt.close()
    return Record(path)


def measured_runs() -> list[Record]:
    return [record for record in find_runs(RUNS) if record.rows(head_scores.TABLE).num_rows]


def test_seeds_are_matched_whatever_names_them(tmp_path):
    records = [seed(tmp_path, 0, [0, 1, 2, 3]), seed(tmp_path, 1, [2, 0, 3, 1])]
    (group,) = head_report(records).groups
    assert group.runs == ["run-0", "run-1"]
    for same_runs in (list_runs(records), iter(list_runs(records)), tmp_path):
        assert head_report(same_runs).groups == [group]


def test_a_layer_without_a_number_is_named_by_its_path(tmp_path, capsys):
    run_dir = moving(tmp_path / "run", [[0, 1, 2, 3]]).path
    for path in run_dir.rglob("heads.arrow"):
        path.unlink()
    as_first_recorded(run_dir)
    (layer,) = head_report(run_dir, DRIFT).runs[0].layers
    assert (layer.layer, layer.name) == (None, "blocks.0.mixer.attend")
    assert main(["heads", str(run_dir), "--measure", DRIFT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "blocks.0.mixer.attend" in lines
    assert not any("-1" in line for line in lines)


def test_a_report_of_a_run_has_the_numbers_of_the_record():
    for record in measured_runs():
        (run,) = head_report([record]).runs
        rows = record.rows(head_scores.TABLE).to_pylist()
        assert run.run == record.name
        assert run.step == max(row["step"] for row in rows)
        assert [layer.name for layer in run.layers] == list(dict.fromkeys(r["layer"] for r in rows))
        last = {(row["layer"], row["measure"]): row["heads"] for row in rows}
        for layer in run.layers:
            for head in layer.heads:
                for measure, score in head.scores.items():
                    expected = last.pop((layer.name, measure)) if head is layer.heads[-1] else None
                    number = (expected or last[layer.name, measure])[head.head]
                    assert score == (number if np.isfinite(number) else None)
        assert last == {}


def test_a_course_has_every_row_of_its_measure_and_is_what_is_drawn():
    record = measured_runs()[0]
    (run,) = head_report([record], "sink").runs
    drawn = head_histories([record], "sink")
    assert (drawn.run, drawn.step) == (run.run, run.step)
    for layer, courses in zip(run.layers, drawn.layers.values(), strict=True):
        assert layer.history is not None
        rows = [
            row
            for row in record.rows(head_scores.TABLE).to_pylist()
            if (row["layer"], row["measure"]) == (layer.name, "sink")
        ]
        assert layer.history.steps.tolist() == [row["step"] for row in rows]
        np.testing.assert_array_equal(layer.history.values, [row["heads"] for row in rows])
        np.testing.assert_array_equal(layer.history.values, courses["sink"].values)


def test_json_has_no_number_that_is_none():
    for record in measured_runs():
        json.dumps(head_report([record], "entropy").to_json(), allow_nan=False)


def test_the_heads_of_seeds_are_matched_before_they_are_averaged(tmp_path):
    orders = [(0, 1, 2, 3), (3, 0, 1, 2), (1, 0, 3, 2)]
    records = [seed(tmp_path, at, order) for at, order in enumerate(orders)]
    report = head_report(records)
    assert (report.runs, report.left_out) == ([], [])
    (group,) = report.groups
    assert group.runs == [record.name for record in records]
    assert group.reference == records[0].name
    (layer,) = group.layers
    assert (layer.layer, layer.name, layer.apart) == (0, LAYER.path, 0)
    for head, score in zip(layer.heads, [0.1, 0.2, 0.6, 0.9], strict=True):
        assert head.of == [order.index(head.head) for order in orders]
        over_seeds = head.measures["previous"]
        assert (over_seeds.n, over_seeds.low, over_seeds.high) == (3, score, score)
        assert [role.role for role in head.roles] == ["previous token"] * (score > 0.5)


def test_a_selection_and_its_records_have_one_report(tmp_path):
    records = [seed(tmp_path, at, range(4)) for at in range(2)]
    records.append(seed(tmp_path, 5, range(4), knobs={"optimizer.lr": 0.1}))
    by_name = head_report(select_runs([], tmp_path))
    assert by_name.to_json() == head_report(records).to_json()
    assert [run.run for run in by_name.runs] == [records[2].name]
    assert [group.seeds for group in by_name.groups] == [[0, 1]]


def test_drift_is_the_mean_over_the_probes():
    record = next(r for r in measured_runs() if r.name.startswith("pronoun-multihead-2x4-s1"))
    names = probe_names(record)
    assert len(names) > 1
    by_probe = [compute_drifts(record, name) for name in names]
    (run,) = head_report([record], DRIFT).runs
    assert len(run.layers) == 2
    for layer, (of, course) in zip(run.layers, compute_mean_drifts(record).items(), strict=True):
        expected = np.mean([found[of].values.numpy() for found in by_probe], axis=0)
        np.testing.assert_allclose(course.values, expected, rtol=1e-6)
        assert course.steps.tolist() == by_probe[0][of].steps[1:]
        assert layer.history is not None
        np.testing.assert_array_equal(layer.history.values, course.values)
        # It is no measure of a step, so no score of a head.
        assert all(DRIFT not in head.scores for head in layer.heads)


def test_a_head_has_the_drift_of_the_probes_that_show_it(tmp_path):
    (run,) = head_report([moving(tmp_path / "run", [[0, 2], [2, 3]])], DRIFT).runs
    course = run.layers[0].history
    assert course is not None
    assert course.steps.tolist() == [2, 4]
    np.testing.assert_allclose(course.values, [[0, np.nan, 0, 0], [1, np.nan, 1, 1]], atol=1e-6)


def test_what_cannot_be_shown_is_refused(tmp_path):
    records = [seed(tmp_path, at, range(4)) for at in range(2)]
    with refuses(RequestError, "analysis.head_report.one_step"):
        head_report(records[:1], DRIFT)
    with refuses(RequestError, "analysis.head_report.course_of_two"):
        head_histories(records, DRIFT)
    with refuses(RequestError, "analysis.head_report.same_seed"):
        head_report([*records, seed(tmp_path, 1, range(4))])
    with refuses(RequestError, "analysis.head_report.other_data"):
        head_report([*records, seed(tmp_path, 2, range(4), data_hash="x")])
    (nothing,) = (r for r in find_runs(RUNS) if r.name.startswith("pronoun-lstm"))
    with refuses(RequestError, "analysis.head_report.no_heads"):
        head_report([nothing])


@pytest.mark.parametrize("name", ["pronoun-multihead-2x4-s0-d703dae27d"])
def test_findings_stand_beside_the_heads(name):
    record = Record(RUNS / name)
    (run,) = head_report([record]).runs
    assert record.result is not None
    metrics = record.result.metrics
    (printed,) = head_report([record]).to_json()["runs"]
    assert list(run.findings) == ["pronoun"]
    assert printed["findings"]["pronoun"]["it"]["head"] == {
        "layer": metrics["pronoun/layer"],
        "head": metrics["pronoun/head"],
    }
