"""Files derived from the records of a directory of runs, so that thousands are read at once.

Each file in `.index` beside the runs has lines of JSON, one a run, with the name of the run and the
signatures of the files that the line was made from. A line is used only while these files are as
they were: a signature has the inode and the time of the last change, so a file that came from
elsewhere with the runs has no effect. Whoever deletes the files loses only time.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.read import read_plain_file

DIRECTORY = ".index"
MOST_BYTES = 2**31
MOST_STALE = 50
"""The number of lines that later ones replaced up to which a file is never written anew."""

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last write and of the last change in nanoseconds."""


class IndexEntry(msgspec.Struct):
    """A line of a derived file."""

    name: str
    """The name of the run."""


Entry = TypeVar("Entry", bound=IndexEntry)


class IndexFile(Generic[Entry]):
    """The last line of each run in a derived file."""

    def __init__(self, runs_dir: Path, file_name: str, entry_type: type[Entry]) -> None:
        self._runs_dir, self._path = runs_dir, runs_dir / DIRECTORY / file_name
        self._new_entries: list[Entry] = []
        self._num_stale = 0
        self._entry_by_name: dict[str, Entry] = {}
        for entry in self._read(entry_type):
            self._num_stale += entry.name in self._entry_by_name
            self._entry_by_name[entry.name] = entry

    def get(self, name: str) -> Entry | None:
        """Return the entry of a run; None where there is none."""
        return self._entry_by_name.get(name)

    def add(self, entry: Entry) -> None:
        """Put an entry in the place of an earlier one of its run."""
        self._num_stale += entry.name in self._entry_by_name
        self._entry_by_name[entry.name] = entry
        self._new_entries.append(entry)

    def save(self, least: int = 1) -> None:
        """Append the new entries where there are `least` of them.

        A file of which most lines are replaced is written anew. A directory that cannot be written
        is left as it is.
        """
        if len(self._new_entries) < least:
            return
        is_stale = self._num_stale > max(MOST_STALE, len(self._entry_by_name))
        with suppress(OSError):
            write.make_directory(self._path.parent)
            with write.lock_directory(self._path.parent):
                if is_stale:
                    write.replace_file(self._path, _encode(self._entry_by_name.values()))
                    self._num_stale = 0
                else:
                    stream = write.Stream(self._path)
                    try:
                        stream.append(_encode(self._new_entries))
                    finally:
                        stream.close()
        self._new_entries = []

    def _read(self, entry_type: type[Entry]) -> Iterable[Entry]:
        """Yield the entries of all lines; those that cannot be read are passed over."""
        decoder = msgspec.json.Decoder(entry_type)
        try:
            text = read_plain_file(self._path, self._runs_dir, MOST_BYTES)
        except (FileNotFoundError, RecordError):
            return
        for line in text.split(b"\n"):
            with suppress(msgspec.MsgspecError):
                yield decoder.decode(line)


def file_signature(path: Path) -> Signature | None:
    """Return what changes with a file's content; None if there is no such file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _encode(entries: Iterable[IndexEntry]) -> bytes:
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
