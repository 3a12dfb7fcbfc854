"""The index of results says what the records say, and costs nothing when it is wrong or gone."""

import json
import os
import shutil

import pytest

from attnlab.errors import RecordError
from attnlab.run_record import result_index
from attnlab.run_record.index_file import DIRECTORY
from attnlab.run_record.record import Record, find_runs
from attnlab.run_record.result_index import FILE, ResultIndex
from tests.fabricated import result, write
from tests.pictured import pictured


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(result_index, "LEAST_NEW", 2)
    directory = tmp_path / "runs"
    for seed in range(3):
        pictured(directory, seed=seed)
    return directory


def results(directory, index):
    return {record.name: index.result(record) for record in find_runs(directory)}


def indexed(directory):
    """Return the results as the records have them, after the index was written."""
    index = ResultIndex(directory)
    from_records = results(directory, index)
    index.save()
    return from_records


def without_reading_records(monkeypatch):
    monkeypatch.setattr(Record, "result", property(lambda _: pytest.fail("a record was read")))


def test_results_from_the_index_equal_those_of_the_records(runs_dir, monkeypatch):
    from_records = indexed(runs_dir)
    without_reading_records(monkeypatch)
    assert results(runs_dir, ResultIndex(runs_dir)) == from_records
    assert all(result and result.findings for result in from_records.values())


def test_a_changed_result_is_read_from_its_record(runs_dir):
    indexed(runs_dir)
    record = find_runs(runs_dir)[1]
    content = json.loads((record.path / "run.json").read_text())
    (record.path / "run.json").write_text(json.dumps({**content, "parameters": 7}))
    with pytest.raises(RecordError):
        ResultIndex(runs_dir).result(record)


def test_a_change_that_keeps_size_and_time_of_a_file_is_noticed(runs_dir):
    indexed(runs_dir)
    record = find_runs(runs_dir)[1]
    path = record.path / "run.json"
    status, text = path.stat(), path.read_text()
    path.write_text(text.replace('"finished"', '"finishes"'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with pytest.raises(RecordError):
        ResultIndex(runs_dir).result(record)


def test_an_index_that_came_with_copied_runs_has_no_effect(runs_dir, tmp_path):
    from_records = indexed(runs_dir)
    text = (runs_dir / DIRECTORY / FILE).read_text().replace('"parameters":', '"parameters":1')
    (runs_dir / DIRECTORY / FILE).write_text(text)
    copy = tmp_path / "copy"
    shutil.copytree(runs_dir, copy)
    assert results(copy, ResultIndex(copy)) == from_records


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"\xff\x00not json\n" + text.replace(b'"result"', b'"else"'),
        lambda text: text.replace(b'"parameters"', b'"unknown"'),
        lambda text: text.replace(b'"seed":', b'"seed":"x'),
        lambda _: b"",
    ],
)
def test_a_damaged_index_is_passed_over(runs_dir, damage):
    from_records = indexed(runs_dir)
    path = runs_dir / DIRECTORY / FILE
    path.write_bytes(damage(path.read_bytes()))
    assert results(runs_dir, ResultIndex(runs_dir)) == from_records


def test_an_index_that_leads_elsewhere_is_not_read(runs_dir, tmp_path, monkeypatch):
    from_records = indexed(runs_dir)
    path = runs_dir / DIRECTORY / FILE
    path.rename(tmp_path / "elsewhere.jsonl")
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    index = ResultIndex(runs_dir)
    assert results(runs_dir, index) == from_records
    without_reading_records(monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        results(runs_dir, ResultIndex(runs_dir))


def test_what_two_processes_add_is_there_for_a_third(runs_dir, monkeypatch):
    first, second = ResultIndex(runs_dir), ResultIndex(runs_dir)
    results(runs_dir, first)
    write(runs_dir, "late-1", result(seed=8))
    write(runs_dir, "late-2", result(seed=9))
    from_records = results(runs_dir, second)
    second.save()
    first.save()
    without_reading_records(monkeypatch)
    assert results(runs_dir, ResultIndex(runs_dir)) == from_records


def test_few_results_and_a_place_that_cannot_be_written_leave_no_index(runs_dir, monkeypatch):
    monkeypatch.setattr(result_index, "LEAST_NEW", 4)
    indexed(runs_dir)
    assert not (runs_dir / DIRECTORY).exists()
    monkeypatch.setattr(result_index, "LEAST_NEW", 2)
    (runs_dir / DIRECTORY).write_text("a file in its place")
    assert len(indexed(runs_dir)) == 3


def test_an_unfinished_run_has_no_result_until_it_has_one(runs_dir):
    finished = find_runs(runs_dir)[0].path
    path = runs_dir / "growing"
    path.mkdir()
    (path / "config.yaml").write_text("seed: 0\n")
    record = Record(path)
    index = ResultIndex(runs_dir)
    assert index.result(record) is None
    shutil.copy(finished / "run.json", path / "run.json")
    assert index.result(record) is not None
