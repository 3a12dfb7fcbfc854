"""All changes go through one module, and each stands behind a fault point."""

import ast
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from attnlab.run_record import write
from tests.prose import refuses

SOURCE = Path(write.__file__)
# What changes a disk, by the last name of the call. `_write_all` stands for its os.write.
CHANGES = {
    "link", "symlink", "rename", "renames", "mkdir", "makedirs", "unlink", "remove", "rmdir",
    "removedirs", "rmtree", "touch", "truncate", "ftruncate", "fsync", "pwrite", "open",
    "write_text", "write_bytes", "symlink_to", "hardlink_to", "copyfile", "move", "write_table",
    "_write_all",
}  # fmt: skip


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """List the calls of a tree, as `os.link`, in the order of the text."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        yield ast.unparse(node.func), node


def test_every_fault_names_a_point_and_every_point_is_used():
    named = [
        ast.literal_eval(node.args[0])
        for name, node in calls(ast.parse(SOURCE.read_text()))
        if name == "strike_fault"
    ]
    assert set(named) == set(write.POINTS)
    assert len(set(write.POINTS)) == len(write.POINTS)


def test_every_changing_call_has_a_fault_point_of_its_own_before_it():
    functions = [
        n for n in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(n, ast.FunctionDef)
    ]
    changing = 0
    for function in functions:
        relevant = [
            name.split(".")[-1]
            for name, node in calls(function)
            if name == "strike_fault" or name.split(".")[-1] in CHANGES
            # Opening to read changes nothing; an `else` shares the point of its `if`.
            if "O_RDONLY" not in ast.unparse(node) and name != "path.rmdir"
        ]
        for before, name in pairwise(["", *relevant]):
            if name != "strike_fault":
                assert before == "strike_fault", f"{function.name}: {name} follows {before}"
                changing += 1
    assert changing > 10


def test_no_other_module_of_the_record_changes_a_file():
    offenders = []
    for path in SOURCE.parent.glob("*.py"):
        for name, node in calls(ast.parse(path.read_text())) if path != SOURCE else ():
            owner, _, last = name.rpartition(".")
            if "O_RDONLY" in ast.unparse(node) or "'rb'" in ast.unparse(node):
                continue
            if (owner != "write" and last in CHANGES) or name == "os.replace":
                offenders.append(f"{path.name} calls {name}")
    assert offenders == []


def test_what_writes_is_known_to_that_law():
    text = "open('a', 'w'); os.link(a, b); path.write_text(''); Path(a).unlink()"
    assert {name.rpartition(".")[2] for name, _ in calls(ast.parse(text))} - CHANGES == {"Path"}


@contextmanager
def fails(number: int) -> Iterator[None]:
    """Expect an error of the system by its number."""
    with pytest.raises(OSError) as raised:  # noqa: PT011
        yield
    assert raised.value.errno == number


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.fixture
def strike(monkeypatch):
    """Let the n-th passing of a point fail in this process."""

    def order(text: str) -> None:
        write._pass_counts.clear()
        monkeypatch.setenv("ATTNLAB_FAULT", text)

    yield order
    write._pass_counts.clear()


def test_a_fault_strikes_at_its_passing_and_at_no_other(strike):
    strike("file.name:full:2")
    write.strike_fault("file.name")
    write.strike_fault("file.sync")
    with fails(errno.ENOSPC):
        write.strike_fault("file.name")
    write.strike_fault("file.name")


@pytest.mark.parametrize("order", ["file.nam:kill:1", "file.name:bomb:1", "file.name:kill", "x"])
def test_an_order_that_cannot_be_followed_is_told(strike, order):
    strike(order)
    with refuses(ValueError, "runs.write.order", f"ATTNLAB_FAULT={order}"):
        write.strike_fault("file.name")


def test_a_new_file_takes_no_name_that_is_taken(tmp_path):
    write.create_file(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write.create_file(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("point", ["file.open", "file.write", "file.sync", "file.name"])
def test_a_new_file_that_fails_leaves_nothing(tmp_path, strike, point):
    strike(f"{point}:full:1")
    with fails(errno.ENOSPC):
        write.create_file(tmp_path / "a", b"content")
    assert names(tmp_path) == []


def test_a_directory_is_born_with_its_files_or_not_at_all(tmp_path, strike):
    write.publish_directory(tmp_path / "1", {"claim.json": b"first"})
    with pytest.raises(FileExistsError):
        write.publish_directory(tmp_path / "1", {"claim.json": b"second"})
    assert (tmp_path / "1/claim.json").read_bytes() == b"first"
    for point in ("file.write", "file.sync", "directory.sync", "birth.name"):
        strike(f"{point}:fsync:1")
        with fails(errno.EIO):
            write.publish_directory(tmp_path / "2", {"claim.json": b"second"})
    assert names(tmp_path) == ["1"]


def test_content_is_written_whole_though_the_system_writes_in_pieces(tmp_path, monkeypatch):
    content = bytes(range(256))
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda file, view: write_all(file, view[:7]))
    write.create_file(tmp_path / "a", content)
    stream = write.Stream(tmp_path / "b")
    stream.append(content)
    stream.append(content)
    stream.close()
    assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "b").read_bytes() == content * 2


@pytest.mark.parametrize(
    ("point", "act"),
    [
        ("stream.write", lambda stream: stream.append(b"a")),
        ("stream.sync", lambda stream: stream.sync()),
    ],
)
def test_a_stream_that_failed_once_is_not_trusted_again(tmp_path, strike, point, act):
    stream = write.Stream(tmp_path / "a")
    strike(f"{point}:fsync:1")
    with fails(errno.EIO):
        act(stream)
    with refuses(OSError, "runs.write.failed_stream", tmp_path):
        stream.append(b"b")
    with refuses(OSError, "runs.write.failed_stream", tmp_path):
        stream.sync()
    stream.close()
    assert b"b" not in (tmp_path / "a").read_bytes()


def test_a_beat_has_the_same_size_whatever_it_says(tmp_path):
    beat = write.BeatFile(tmp_path / "beat")
    sizes = set()
    for counter, step in ((1, 0), (10**9, 10**12), (2, 3)):
        beat.write(counter, step)
        sizes.add((tmp_path / "beat").stat().st_size)
        assert [int(word) for word in (tmp_path / "beat").read_text().split()] == [counter, step]
    beat.close()
    assert len(sizes) == 1


def test_the_first_to_publish_wins(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert write.publish_file(tmp_path / "a", tmp_path / "run.json")
    assert not write.publish_file(tmp_path / "b", tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == "a"


def test_a_directory_that_is_made_is_made_with_those_above_it(tmp_path, monkeypatch):
    passed: list[str] = []
    monkeypatch.setattr(write, "strike_fault", passed.append)
    write.make_directory(tmp_path / "a/b")
    write.make_directory(tmp_path / "a/b")
    assert passed == ["directory.make", "directory.sync"] * 2
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        write.make_directory(tmp_path / "file")
