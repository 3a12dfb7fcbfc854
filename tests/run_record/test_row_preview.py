"""Previews have rows as they were recorded, and cost nothing when they are wrong or gone."""

import numpy as np
import pyarrow as pa
import pytest

from attnlab.errors import RecordError
from attnlab.run_record import row_preview
from attnlab.run_record.index_file import DIRECTORY
from attnlab.run_record.record import Record
from attnlab.run_record.row_preview import (
    FILE,
    MOST_ROWS,
    RowPreviews,
    num_recorded_rows,
    preview_rows,
)
from tests.pictured import pictured


def table(num_rows, every=1):
    steps = np.arange(num_rows) * every
    return pa.table({"step": steps, "loss": np.sqrt(steps + 0.5)})


@pytest.mark.parametrize("num_rows", [0, 1, MOST_ROWS, MOST_ROWS + 1, 10_000, 65_536])
def test_a_preview_has_recorded_rows_the_first_and_the_last(num_rows):
    rows = table(num_rows)
    preview = preview_rows(rows)
    assert preview.num_rows <= MOST_ROWS + 1
    assert num_recorded_rows(preview) == num_rows
    if num_rows:
        assert preview["step"][0].as_py() == 0
        assert preview["step"][-1].as_py() == num_rows - 1
    kept = rows.take(preview["step"].combine_chunks())
    assert preview.to_pydict() == kept.to_pydict()


def test_runs_of_different_lengths_keep_common_steps():
    short, long = (set(preview_rows(table(n))["step"].to_pylist()) for n in (3_000, 10_000))
    assert {step for step in long if step < 2_999} <= short


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(row_preview, "MOST_ROWS", 4)
    return pictured(tmp_path / "runs")


def test_a_record_with_a_preview_has_the_same_rows_before_and_after_it_is_saved(run):
    whole = Record(run)
    previews = RowPreviews(run.parent)
    fresh = previews.open(Record(run)).rows("validation")
    previews.save()
    saved = RowPreviews(run.parent).open(Record(run))
    assert fresh.to_pydict() == saved.rows("validation").to_pydict()
    assert fresh.num_rows == 4
    assert num_recorded_rows(saved.rows("validation")) == whole.rows("validation").num_rows == 10
    # What is not thinned, and what was not recorded.
    assert saved.rows("patterns") == whole.rows("patterns")
    assert saved.rows("train").num_rows == 0


def test_a_saved_preview_is_read_and_no_table(run, monkeypatch):
    previews = RowPreviews(run.parent)
    previews.open(Record(run))
    previews.save()
    monkeypatch.setattr(Record, "rows", lambda *_: pytest.fail("a table was read"))
    assert RowPreviews(run.parent).open(Record(run)).rows("validation").num_rows == 4


def test_a_table_that_changed_is_read_again_and_its_damage_is_said(run):
    previews = RowPreviews(run.parent)
    previews.open(Record(run))
    previews.save()
    file = run / "attempts" / "1" / "validation.arrow"
    file.write_bytes(file.read_bytes()[:-60] + b"x" * 60)
    for current in (previews, RowPreviews(run.parent)):
        with pytest.raises(RecordError, match="damaged"):
            current.open(Record(run))


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": 1}\n', b"\xff\n", b"[]\n" * 3])
def test_a_file_that_cannot_be_read_costs_nothing_but_time(run, content):
    path = run.parent / DIRECTORY / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert RowPreviews(run.parent).open(Record(run)).rows("validation").num_rows == 4


def test_lines_that_others_replaced_do_not_pile_up(run):
    path = run.parent / DIRECTORY / FILE
    previews = RowPreviews(run.parent)
    sizes = []
    for _ in range(120):
        (run / "run.json").touch()
        previews.open(Record(run))
        previews.save()
        sizes.append(path.stat().st_size)
    assert max(sizes) < 60 * sizes[0]
    assert RowPreviews(run.parent).open(Record(run)).rows("validation").num_rows == 4
