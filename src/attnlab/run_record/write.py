"""All writes below a run's directory, one system call at a time.

Each call has a fault point before it, so that a test can kill the process, fill the disk or fail
the sync there: `ATTNLAB_FAULT=point:kind:n` strikes when the point is passed for the n-th time,
counted from 1.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POINTS = (
    "directory.make",
    "file.open",
    "file.write",
    "file.sync",
    "file.name",
    "file.clear",
    "birth.make",
    "birth.name",
    "stream.open",
    "stream.write",
    "stream.sync",
    "beat.write",
    "publish.link",
    "remove",
    "directory.sync",
)
KINDS = ("kill", "stop", "full", "fsync")
TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files and directories; readers ignore them."""

DELETED = ".deleted-"
"""Prefix of the names of directories that are being deleted; readers ignore them."""

_pass_counts: Counter[str] = Counter()


def strike_fault(point: str) -> None:
    """Simulate a fault at a point if ATTNLAB_FAULT in the environment names it."""
    setting = os.environ.get("ATTNLAB_FAULT")
    if not setting:
        return
    point_to_strike, kind, count = (*setting.split(":"), "", "")[:3]
    if point_to_strike not in POINTS or kind not in KINDS or not count.isdecimal():
        raise ValueError(
            f"ATTNLAB_FAULT={setting}: expected POINT:KIND:N, a point of {', '.join(POINTS)} and a "
            f"kind of {', '.join(KINDS)}"
        )
    if point_to_strike != point:
        return
    _pass_counts[point] += 1
    if _pass_counts[point] != int(count):
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        error_number = errno.ENOSPC if kind == "full" else errno.EIO
        raise OSError(error_number, os.strerror(error_number), point)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each synced to the disk, if they do not exist."""
    if not path.is_dir():
        make_directory(path.parent)
        strike_fault("directory.make")
        path.mkdir(exist_ok=True)
        _sync_directory(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file under a free name; raises FileExistsError if it is taken.

    The name appears only with the whole content on the disk.
    """
    temporary = temporary_path(path.parent)
    try:
        _write_file(temporary, content)
        strike_fault("file.name")
        os.link(temporary, path)
    finally:
        _delete_temporary(temporary)
    _sync_directory(path.parent)


def publish_directory(path: Path, content_by_name: Mapping[str, bytes]) -> None:
    """Make a directory that has its files from the start; raises FileExistsError if it exists.

    A rename onto a directory fails unless that one is empty, and those made here never are.
    """
    assert content_by_name
    temporary = temporary_path(path.parent)
    strike_fault("birth.make")
    temporary.mkdir()
    try:
        for name, content in content_by_name.items():
            _write_file(temporary / name, content)
        _sync_directory(temporary)
        move_directory(temporary, path)
    except OSError:
        for name in content_by_name:
            _delete_temporary(temporary / name)
        _delete_temporary(temporary)
        raise


def move_directory(source: Path, target: Path) -> None:
    """Give a directory that is not empty another name; raises FileExistsError if it is taken."""
    strike_fault("birth.name")
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
    _sync_directory(target.parent)


def publish_file(source: Path, target: Path) -> bool:
    """Link a finished file under a second name; return False if the name is taken."""
    strike_fault("publish.link")
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    _sync_directory(target.parent)
    return True


def remove_file(path: Path) -> None:
    """Delete a file, if it exists."""
    strike_fault("remove")
    path.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    """Delete a directory with all that is in it, if it exists."""
    strike_fault("remove")
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Keep other processes that ask for the same lock waiting; a killed process frees it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def temporary_path(directory: Path) -> Path:
    """Return a free name in a directory, where a rename or a link does not cross file systems."""
    return directory / f"{TEMPORARY}{uuid.uuid4().hex}"


def remove_directory_at_once(path: Path) -> None:
    """Delete a directory with all that is in it, at once for whoever reads its name.

    It is renamed first, so that a process that is killed meanwhile leaves no half of it: what is
    left has a hidden name, and goes with the next directory that is deleted beside it.
    """
    strike_fault("remove")
    path.rename(path.parent / f"{DELETED}{uuid.uuid4().hex}")
    for hidden_directory in path.parent.glob(f"{DELETED}*"):
        strike_fault("remove")
        shutil.rmtree(hidden_directory)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, replacing an existing one: for reports and results, not for files of a run."""
    temporary = temporary_path(path.parent)
    try:
        _write_file(temporary, content)
        strike_fault("file.name")
        temporary.replace(path)
    finally:
        _delete_temporary(temporary)
    _sync_directory(path.parent)


class Stream:
    """An append-only file of this process; a killed append leaves a torn end at most.

    After a failed write or sync the content of the disk is unknown, and a second sync would report
    success; so the stream then refuses every further call.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._is_usable, self._has_unsynced = path, True, True
        strike_fault("stream.open")
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _sync_directory(path.parent)

    def append(self, content: bytes) -> None:
        """Append content; it survives a kill of the process, and after `sync` a power failure."""
        self._begin_operation()
        self._has_unsynced = True
        strike_fault("stream.write")
        _write_all(self._file, content)
        self._is_usable = True

    def sync(self) -> None:
        """Wait until all content is on the disk."""
        if self._has_unsynced:
            self._begin_operation()
            strike_fault("stream.sync")
            os.fsync(self._file)
            self._is_usable, self._has_unsynced = True, False

    def close(self) -> None:
        """Close the file; a later append is refused."""
        self._is_usable, self._has_unsynced = False, True
        os.close(self._file)

    def _begin_operation(self) -> None:
        """Raise OSError after a failure; a call in progress counts as failed until it succeeds."""
        if not self._is_usable:
            reason = "it is closed, or an earlier write or sync failed"
            raise OSError(errno.EIO, reason, str(self._path))
        self._is_usable = False


class BeatFile:
    """Two numbers of fixed width, overwritten in place: a sign of life, which is not synced."""

    WIDTH = 20

    def __init__(self, path: Path) -> None:
        strike_fault("stream.open")
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    def write(self, counter: int, step: int) -> None:
        """Write the number of beats so far, and the current step."""
        strike_fault("beat.write")
        os.pwrite(self._file, f"{counter:{self.WIDTH}d}{step:{self.WIDTH}d}\n".encode(), 0)

    def close(self) -> None:
        """Close the file; a later beat is refused."""
        os.close(self._file)
        self._file = -1


def json_bytes(value: Any) -> bytes:
    """Return plain values as indented JSON. Raises ValueError for NaN, which is no JSON."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _write_file(path: Path, content: bytes) -> None:
    """Write a new file and sync it to the disk."""
    strike_fault("file.open")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        strike_fault("file.write")
        _write_all(descriptor, content)
        strike_fault("file.sync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        num_written = os.write(descriptor, remaining)
        remaining = remaining[num_written:]


def _delete_temporary(path: Path) -> None:
    strike_fault("file.clear")
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    strike_fault("directory.sync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
