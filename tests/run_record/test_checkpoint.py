"""The checkpoint that is loaded is one that was written, and the newest of those."""

import json

import pytest

from attnlab.run_record.attempt import Attempt
from attnlab.run_record.checkpoint import newest_checkpoint
from tests.prose import says
from tests.run_record.trainer import IDENTITY


@pytest.fixture
def saved(tmp_path):
    """A run whose one attempt saved after steps 1, 2 and 3."""
    attempt = Attempt.claim(tmp_path / "run", IDENTITY)
    for step in (1, 2, 3):
        attempt.save(step, b"state of step %d" % step)
    attempt.close()
    return tmp_path / "run"


def files(run_dir, number=1):
    return sorted((run_dir / f"attempts/{number}/checkpoints").glob("*.ckpt"))


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing") == (None, [])
    Attempt.claim(tmp_path / "run", IDENTITY).close()
    assert newest_checkpoint(tmp_path / "run") == (None, [])


def test_the_newest_is_found_and_held_whatever_becomes_of_its_file(saved):
    checkpoint, damaged = newest_checkpoint(saved)
    for path in files(saved):
        path.unlink()
    assert checkpoint is not None
    assert (checkpoint.attempt, checkpoint.step) == (1, 3)
    assert checkpoint.content == b"state of step 3"
    assert damaged == []


def test_the_highest_step_of_all_attempts_counts_and_of_equals_the_latest_attempt(saved):
    second = Attempt.claim(saved, IDENTITY)
    second.save(2, b"other")
    checkpoint, _ = newest_checkpoint(saved)
    assert checkpoint is not None
    assert (checkpoint.attempt, checkpoint.step) == (1, 3)
    second.save(3, b"again")
    second.close()
    checkpoint, _ = newest_checkpoint(saved)
    assert checkpoint is not None
    assert (checkpoint.attempt, checkpoint.content) == (2, b"again")


def test_any_flipped_byte_is_told_and_the_one_before_is_taken(saved):
    older, newer = files(saved)
    content, sentences = newer.read_bytes(), set()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        newer.write_bytes(flipped)
        checkpoint, (sentence,) = newest_checkpoint(saved)
        assert checkpoint is not None
        assert checkpoint.step == 2
        sentences.add(sentence)
    says("runs.checkpoint.flipped", "\n".join(sentences), newer)
    older.write_bytes(b"X" + older.read_bytes()[1:])
    # The first of the three was deleted, which is no damage.
    checkpoint, (first, second) = newest_checkpoint(saved)
    assert checkpoint is None
    assert first.startswith(str(newer))
    assert second.startswith(str(older))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("empty", lambda path: path.write_bytes(b"")),
        ("torn", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("missing", lambda path: path.unlink()),
        ("directory", lambda path: (path.unlink(), path.mkdir())),
    ],
)
def test_a_file_that_is_not_what_was_written_is_told(saved, name, damage):
    newer = files(saved)[-1]
    damage(newer)
    checkpoint, (sentence,) = newest_checkpoint(saved)
    assert checkpoint is not None
    assert checkpoint.content == b"state of step 2"
    says(f"runs.checkpoint.{name}", sentence, newer)


def test_a_torn_last_line_of_the_manifest_is_as_if_never_written(saved):
    manifest = saved / "attempts/1/checkpoints/manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    for end in (0, 1, *range(2, len(lines[2]) - 2, 9), len(lines[2]) - 2, len(lines[2]) - 1):
        manifest.write_bytes(lines[0] + lines[1] + lines[2][:end])
        checkpoint, _ = newest_checkpoint(saved)
        assert checkpoint is not None
        # Whole but for its line feed, the line says all that it ever said.
        assert checkpoint.step == (3 if end == len(lines[2]) - 1 else 2)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"step": 3}', b"\xff", b'{"step": "3"}'])
def test_a_damaged_line_of_the_manifest_is_told(saved, line):
    manifest = saved / "attempts/1/checkpoints/manifest.jsonl"
    lines = manifest.read_bytes().splitlines()
    manifest.write_bytes(b"\n".join([lines[0], lines[1], line, b""]))
    checkpoint, sentences = newest_checkpoint(saved)
    assert checkpoint is not None
    assert checkpoint.step == 2
    (sentence, *_) = (one for one in sentences if str(manifest) in one)
    says("runs.checkpoint.damaged_line", sentence, manifest)


def test_a_file_without_a_line_is_not_believed(saved):
    stray = saved / "attempts/1/checkpoints/step-000000009.ckpt"
    stray.write_bytes(b"a kill came before its line")
    checkpoint, damaged = newest_checkpoint(saved)
    assert checkpoint is not None
    assert (checkpoint.step, damaged) == (3, [])


def test_the_manifest_names_every_checkpoint_that_was_ever_saved(saved):
    manifest = saved / "attempts/1/checkpoints/manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [path.name for path in files(saved)] == [line["file"] for line in lines[1:]]
