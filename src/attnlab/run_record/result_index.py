"""The results of a directory of runs in one derived file: `.index/results.jsonl`.

The results were checked when their lines were written (`run_record.index_file`).
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import msgspec

from attnlab.run_record.index_file import IndexEntry, IndexFile, Signature, file_signature
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult

FILE = "results.jsonl"
LEAST_NEW = 50
"""Number of results below which nothing is written: so few are read from their records at once."""


class _Entry(IndexEntry):
    signature: Signature
    """Of run.json."""
    result: msgspec.Raw


class ResultIndex:
    """The results of the runs in a directory, from its index where that is up to date."""

    def __init__(self, runs_dir: Path) -> None:
        self._file = IndexFile(runs_dir, FILE, _Entry)

    def result(self, record: Record) -> RunResult | None:
        """Return the result of a run of this directory; None before it is finished.

        Raises RecordError if its record is damaged.
        """
        signature = file_signature(record.path / "run.json")
        entry = self._file.get(record.name)
        if signature is not None and entry is not None and entry.signature == signature:
            with suppress(msgspec.MsgspecError):
                return msgspec.json.decode(entry.result, type=RunResult)
        result = record.result
        if result is not None and signature is not None:
            encoded = msgspec.Raw(msgspec.json.encode(asdict(result)))
            self._file.add(_Entry(record.name, signature, encoded))
        return result

    def save(self) -> None:
        """Append the results that were read from records, if they are many."""
        self._file.save(LEAST_NEW)
