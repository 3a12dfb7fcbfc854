"""All that changes anything below a run's directory, one system call at a time.

Every such call has a fault point before it, so that a test can kill the process, fill the disk or
fail the sync right there: `ATTNLAB_FAULT=point:kind:n` strikes when the point is passed for the
n-th time, counted from 1.
"""

import errno
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Mapping
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
"""How the name of what is not finished begins; no reader looks at it."""

_passed: Counter[str] = Counter()


def fault(point: str) -> None:
    """Strike here if the environment says so."""
    order = os.environ.get("ATTNLAB_FAULT")
    if not order:
        return
    where, kind, count = (*order.split(":"), "", "")[:3]
    if where not in POINTS or kind not in KINDS or not count.isdecimal():
        raise ValueError(
            f"ATTNLAB_FAULT={order}: expected POINT:KIND:N, a point of {', '.join(POINTS)} and a "
            f"kind of {', '.join(KINDS)}"
        )
    if where != point:
        return
    _passed[point] += 1
    if _passed[point] != int(count):
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        number = errno.ENOSPC if kind == "full" else errno.EIO
        raise OSError(number, os.strerror(number), point)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each on the disk; one that exists is left."""
    if not path.is_dir():
        make_directory(path.parent)
        fault("directory.make")
        path.mkdir(exist_ok=True)
        _sync_directory(path.parent)


def new_file(path: Path, content: bytes) -> None:
    """Put a whole file under a name that is free; raises FileExistsError where it is not.

    The name appears with the content on the disk behind it, or not at all.
    """
    temporary = _temporary(path.parent)
    try:
        _write_file(temporary, content)
        fault("file.name")
        os.link(temporary, path)
    finally:
        _clear(temporary)
    _sync_directory(path.parent)


def born(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory that holds `files` from its first moment; FileExistsError if it exists.

    A rename onto a directory fails unless that one is empty, and none that was born here is.
    """
    assert files
    temporary = _temporary(path.parent)
    fault("birth.make")
    temporary.mkdir()
    try:
        for name, content in files.items():
            _write_file(temporary / name, content)
        _sync_directory(temporary)
        fault("birth.name")
        temporary.rename(path)
    except OSError as error:
        for name in files:
            _clear(temporary / name)
        _clear(temporary)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise
    _sync_directory(path.parent)


def publish(source: Path, target: Path) -> bool:
    """Give a finished file a second name; False if somebody else was first."""
    fault("publish.link")
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    _sync_directory(target.parent)
    return True


def remove(path: Path) -> None:
    """Delete a file that is not needed any more."""
    fault("remove")
    path.unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Put a whole file where one may stand already: reports and results, nothing of a run."""
    temporary = _temporary(path.parent)
    try:
        _write_file(temporary, content)
        fault("file.name")
        temporary.replace(path)
    finally:
        _clear(temporary)
    _sync_directory(path.parent)


class Stream:
    """A file of our own that only grows: each append is one write, whole or torn at the end.

    After a failed write or sync nobody knows what the disk holds, and a second sync would claim
    success; so the stream refuses whatever comes next.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._sound, self._unsynced = path, True, True
        fault("stream.open")
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _sync_directory(path.parent)

    def append(self, content: bytes) -> None:
        """Write at the end; it survives the process, and after `sync` the machine."""
        self._doubt()
        self._unsynced = True
        fault("stream.write")
        _write_all(self._file, content)
        self._sound = True

    def sync(self) -> None:
        """Wait until all is on the disk."""
        if self._unsynced:
            self._doubt()
            fault("stream.sync")
            os.fsync(self._file)
            self._sound, self._unsynced = True, False

    def close(self) -> None:
        """Give the file back; a later append is refused."""
        self._sound, self._unsynced = False, True
        os.close(self._file)

    def _doubt(self) -> None:
        if not self._sound:
            reason = "it is closed, or an earlier write or sync failed"
            raise OSError(errno.EIO, reason, str(self._path))
        self._sound = False


class BeatFile:
    """Two numbers of fixed width, written over in place: a sign of life, and no evidence."""

    WIDTH = 20

    def __init__(self, path: Path) -> None:
        fault("stream.open")
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    def write(self, counter: int, step: int) -> None:
        """Say how often the holder has beaten, and at which step it is."""
        fault("beat.write")
        os.pwrite(self._file, f"{counter:{self.WIDTH}d}{step:{self.WIDTH}d}\n".encode(), 0)

    def close(self) -> None:
        """Give the file back; a later beat is refused."""
        os.close(self._file)
        self._file = -1


def to_json(value: Any) -> bytes:
    """Write plain values for people and programs; NaN is no JSON and is refused."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _temporary(directory: Path) -> Path:
    # In the target's own directory: a rename or a link does not cross file systems.
    return directory / f"{TEMPORARY}{uuid.uuid4().hex}"


def _write_file(path: Path, content: bytes) -> None:
    fault("file.open")
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        fault("file.write")
        _write_all(file, content)
        fault("file.sync")
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _clear(path: Path) -> None:
    fault("file.clear")
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    fault("directory.sync")
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
