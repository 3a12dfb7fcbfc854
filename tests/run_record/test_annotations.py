"""Tags, notes and sweeps stand beside a record: nothing is rewritten, no line blocks another."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from attnlab.errors import RecordError, RequestError
from attnlab.run_record.annotations import FILE, KINDS, Annotations, annotate, read_annotations


def test_a_run_of_which_nothing_is_said_has_nothing(tmp_path):
    assert read_annotations(tmp_path) == Annotations()
    assert not list(tmp_path.iterdir())


def test_tags_notes_and_sweeps_are_what_was_said_in_order(tmp_path):
    said = [("tag", "good"), ("tag", "paper"), ("note", "diverged\nat first"), ("untag", "good")]
    for kind, text in [*said, ("sweep", "a"), ("sweep", "b"), ("sweep", "a"), ("archive", "")]:
        annotate(tmp_path, kind, text)
    annotations = read_annotations(tmp_path)
    assert annotations.tags == ("paper",)
    assert [note.text for note in annotations.notes] == ["diverged\nat first"]
    assert annotations.sweeps == ("a", "b")
    assert annotations.archived
    annotate(tmp_path, "restore")
    assert not read_annotations(tmp_path).archived


def test_what_was_written_is_never_rewritten(tmp_path):
    before = b""
    for kind in KINDS:
        annotate(tmp_path, kind, "text")
        content = (tmp_path / FILE).read_bytes()
        assert content.startswith(before)
        assert len(content) > len(before)
        before = content


@pytest.mark.parametrize("torn", [b'{"at": "2026', b'{"at": "x", "kind": "tag", "text": "old"}'])
def test_a_torn_end_costs_its_own_line_alone(tmp_path, torn):
    annotate(tmp_path, "tag", "first")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + torn)
    annotate(tmp_path, "tag", "last")
    tags = read_annotations(tmp_path).tags
    assert tags[0] == "first"
    assert tags[-1] == "last"


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"kind": "tag"}',
        '{"kind": 1, "at": "", "text": ""}',
        '{"kind": "shout", "at": "", "text": "x"}',
        "[" * 5000,
        "\x00\xff",
    ],
)
def test_a_line_that_says_nothing_is_passed_over(tmp_path, line):
    (tmp_path / FILE).write_text(f"{line}\n")
    annotate(tmp_path, "tag", "kept")
    assert read_annotations(tmp_path) == Annotations(tags=("kept",))


def test_lines_of_many_writers_do_not_mix(tmp_path):
    names = [f"tag{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda name: annotate(tmp_path, "tag", name), names))
    assert sorted(read_annotations(tmp_path).tags) == sorted(names)


@pytest.mark.parametrize("tag", ["", "two words", "a,b", "x" * 65, "\x1b[2J", "line\nfeed"])
def test_a_tag_that_is_no_word_is_refused_and_nothing_is_written(tmp_path, tag):
    with pytest.raises(RequestError, match="expected a word"):
        annotate(tmp_path, "tag", tag)
    assert not list(tmp_path.iterdir())


def test_a_file_that_leads_elsewhere_is_not_followed(tmp_path):
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_dir.mkdir()
    (run_dir / FILE).symlink_to(elsewhere)
    for use in (read_annotations, lambda path: annotate(path, "tag", "x")):
        with pytest.raises(RecordError, match="outside of its run"):
            use(run_dir)
    assert not elsewhere.exists()
