"""Each copy has a line, and no line is lost, cut or believed that does not fit."""

import json
from pathlib import Path

import pytest

from attnlab.errors import RecordError
from attnlab.run_record.forms import Mirror
from attnlab.run_record.mirrors import (
    FILE,
    MARK,
    add_mirror,
    find_mirror,
    format_place,
    new_mirror,
    read_mark,
    read_mirrors,
    write_mark,
)
from tests.prose import refuses


def add(run_dir: Path, tool: str, place: str, project: str | None = None) -> Mirror:
    entry = new_mirror(tool, place, project, "run-1")
    add_mirror(run_dir, entry)
    return entry


def test_lines_are_appended_and_found_by_tool_place_and_project(tmp_path):
    assert read_mirrors(tmp_path) == []
    first = add(tmp_path, "csv", "attempts/1/csv")
    others = [add(tmp_path, "wandb", place, "mine") for place in ("a", "b")]
    entries = read_mirrors(tmp_path)
    assert entries == [first, *others]
    assert find_mirror(entries, "csv", "attempts/1/csv", None) == first
    assert find_mirror(entries, "wandb", "a", "mine") == others[0]
    assert find_mirror(entries, "wandb", None, "mine") == others[1]
    for wrong in (
        ("csv", "elsewhere", None),
        ("wandb", "a", "theirs"),
        ("tensorboard", None, None),
    ):
        assert find_mirror(entries, *wrong) is None


def test_a_torn_line_takes_no_other_with_it(tmp_path):
    first = add(tmp_path, "csv", "a")
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + b'{"tool": "csv", "pla')
    last = add(tmp_path, "csv", "b")
    assert read_mirrors(tmp_path) == [first, last]


@pytest.mark.parametrize("line", ["[]", "null", '{"tool": "csv"}', '{"tool": 3}', "[" * 100_000])
def test_a_line_of_another_form_is_passed_over(tmp_path, line):
    (tmp_path / FILE).write_text(line + "\n")
    entry = add(tmp_path, "csv", "a")
    assert read_mirrors(tmp_path) == [entry]


def test_a_place_that_a_terminal_obeys_is_no_place(tmp_path):
    entry = add(tmp_path, "csv", "a")
    (tmp_path / FILE).write_text(json.dumps({**entry, "place": "\x1b[2J"}) + "\n")
    assert read_mirrors(tmp_path) == []


def test_a_file_of_somewhere_else_is_not_read(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (tmp_path / "secret").write_text("{}")
    (run_dir / FILE).symlink_to(tmp_path / "secret")
    with refuses(RecordError, "runs.mirrors.link", tmp_path):
        read_mirrors(run_dir)
    with pytest.raises(RecordError):
        add(run_dir, "csv", "a")
    assert (tmp_path / "secret").read_text() == "{}"


def test_a_place_in_the_run_moves_with_it(tmp_path):
    assert format_place(tmp_path / "run/attempts/1/csv", tmp_path / "run") == "attempts/1/csv"
    assert format_place(tmp_path / "out/csv", tmp_path / "run") == str(tmp_path / "out/csv")


def test_a_copy_holds_its_own_line(tmp_path):
    assert read_mark(tmp_path) is None
    entry = new_mirror("csv", "a", None, "run-1")
    write_mark(tmp_path, entry)
    assert read_mark(tmp_path) == entry
    for text in ("{", "[]", json.dumps({**entry, "at": 3})):
        (tmp_path / MARK).write_text(text)
        assert read_mark(tmp_path) is None
