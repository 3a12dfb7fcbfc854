"""The results of a directory of runs in one file, so that thousands are read at once.

`.index/results.jsonl` beside the runs is derived from their records: each line has the name of a
run, the signature of its run.json, and its result, which was checked when the line was written. A
line whose signature is not that of the file is not used, so a file that came from elsewhere with
the runs has no effect: the signature has the inode and the time of its last change. Whoever deletes
the file loses only time.
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import msgspec

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.read import read_plain_file
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult

DIRECTORY, FILE = ".index", "results.jsonl"
MOST_BYTES = 2**31
LEAST_NEW = 50
"""Number of results below which nothing is written: so few are read from their records at once."""

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last write and of the last change in nanoseconds."""


class _Entry(msgspec.Struct):
    """A line of the index."""

    name: str
    signature: Signature
    result: msgspec.Raw


class ResultIndex:
    """The results of the runs in a directory, from its index where that is up to date."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._entries = _read_entries(runs_dir)
        self._new_entries: list[_Entry] = []

    def result(self, record: Record) -> RunResult | None:
        """Return the result of a run of this directory; None before it is finished.

        Raises RecordError if its record is damaged.
        """
        signature = _signature(record.path / "run.json")
        entry = self._entries.get(record.name)
        if signature is not None and entry is not None and entry.signature == signature:
            with suppress(msgspec.MsgspecError):
                return msgspec.json.decode(entry.result, type=RunResult)
        result = record.result
        if result is not None and signature is not None:
            encoded = msgspec.Raw(msgspec.json.encode(asdict(result)))
            self._new_entries.append(_Entry(record.name, signature, encoded))
        return result

    def save(self) -> None:
        """Append the results that were read from records, if they are many.

        A directory that cannot be written is left as it is.
        """
        if len(self._new_entries) < LEAST_NEW:
            return
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in self._new_entries)
        directory = self._runs_dir / DIRECTORY
        with suppress(OSError):
            write.make_directory(directory)
            with write.lock_directory(directory):
                stream = write.Stream(directory / FILE)
                try:
                    stream.append(lines)
                finally:
                    stream.close()
        self._new_entries = []


def _read_entries(runs_dir: Path) -> dict[str, _Entry]:
    """Return the last line of each run; lines that cannot be read are passed over."""
    entries: dict[str, _Entry] = {}
    decoder = msgspec.json.Decoder(_Entry)
    try:
        text = read_plain_file(runs_dir / DIRECTORY / FILE, runs_dir, MOST_BYTES)
    except (FileNotFoundError, RecordError):
        return {}
    for line in text.split(b"\n"):
        with suppress(msgspec.MsgspecError):
            entry = decoder.decode(line)
            entries[entry.name] = entry
    return entries


def _signature(path: Path) -> Signature | None:
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
