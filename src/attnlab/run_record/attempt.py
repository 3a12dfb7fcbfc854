"""One process's try at a run: it writes inside its own directory, and nothing is ever rewritten."""

import hashlib
import json
import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pyarrow as pa
import yaml

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.batches import write_batch
from attnlab.run_record.forms import SCHEMA, sealed
from attnlab.run_record.identity import canonical, identity_hash, plain
from attnlab.run_record.record import Record, attempt_numbers, checkpoint_name
from attnlab.run_record.result import AttemptSummary, RunResult

BEAT_SECONDS = 1.0
KEPT = 2
"""Checkpoints that an attempt keeps: a newer one that turns out damaged leaves the older."""


class AlreadyClaimed(Exception):
    """Another process has begun the same attempt a moment earlier."""


class Attempt:
    """The right to write `attempts/<number>/` of a run, until it ends."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.name)
        self._beat = write.BeatFile(path / "beat")
        self._beats, self._beaten, self._step = 0, float("-inf"), -1
        self._tables: dict[str, tuple[pa.Schema, write.Stream]] = {}
        self._rows: Counter[str] = Counter()
        self._manifest: write.Stream | None = None
        self._saved: list[Path] = []
        self._open: list[write.BeatFile | write.Stream] = [self._beat]

    @classmethod
    def claim(
        cls,
        run_dir: Path,
        identity: Mapping[str, Any],
        resumed_from: Mapping[str, Any] | None = None,
        *,
        after: int | None = None,
    ) -> "Attempt":
        """Begin the next attempt of a run, which is made if it is new.

        `after` is the last attempt that the caller knew of when it decided to go on: one that
        began meanwhile then has the right. Raises AlreadyClaimed if another process took the
        number, RecordError if the directory holds another identity.
        """
        write.make_directory(run_dir / "attempts")
        _state_identity(run_dir, identity)
        number = 1 + (max(attempt_numbers(run_dir), default=0) if after is None else after)
        claim = {
            "schema": SCHEMA,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": psutil.Process().create_time(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "resumed_from": dict(resumed_from) if resumed_from else None,
            "identity_hash": identity_hash(identity),
        }
        path = run_dir / "attempts" / str(number)
        try:
            write.born(path, {"claim.json": write.to_json(sealed(claim))})
        except FileExistsError as error:
            raise AlreadyClaimed(f"attempt {number} of {run_dir} is taken") from error
        return cls(path)

    def beat(self, step: int) -> None:
        """Show that the run moves: after every step, and at one step once a second at most.

        So it is known at which step an attempt died.
        """
        now = monotonic()
        if step != self._step or now - self._beaten >= BEAT_SECONDS:
            self._beats, self._beaten, self._step = self._beats + 1, now, step
            self._beat.write(self._beats, step)

    def append(self, table: str, rows: Sequence[Mapping[str, Any]], durable: bool = False) -> None:
        """Add rows to a table, an Arrow stream whose columns the first row decides.

        Numbers are stored as float64, but for the step, which is whole; an empty list of the first
        row is one of texts. Raises ValueError for a row without a step or with other columns.
        """
        if not rows:
            return
        if table not in self._tables:
            self._begin(table, rows[0])
        schema, stream = self._tables[table]
        for row in rows:
            if set(row) != set(schema.names):
                raise ValueError(
                    f"{table}: a row has the columns {sorted(row)}, but the table began with "
                    f"{sorted(schema.names)}; give the rows of one table the same columns"
                )
        columns = [pa.array([row[n] for row in rows], schema.field(n).type) for n in schema.names]
        stream.append(write_batch(pa.record_batch(columns, schema=schema)))
        self._rows[table] += len(rows)
        if durable:
            stream.sync()

    def sync(self) -> None:
        """Wait until all rows so far are on the disk."""
        for _, stream in self._tables.values():
            stream.sync()

    def save(self, step: int, content: bytes) -> str:
        """Keep a checkpoint, after all rows so far, and give its SHA-256; the oldest goes last."""
        self.sync()
        directory = self.path / "checkpoints"
        write.make_directory(directory)
        path = directory / checkpoint_name(step)
        sha256 = hashlib.sha256(content).hexdigest()
        write.new_file(path, content)
        line = {"step": step, "file": path.name, "size": len(content), "sha256": sha256}
        line["rows"] = dict(self._rows)
        if self._manifest is None:
            self._manifest = self._stream(directory / "manifest.jsonl")
        self._manifest.append((json.dumps(line) + "\n").encode())
        self._manifest.sync()
        self._saved.append(path)
        while len(self._saved) > KEPT:
            write.remove(self._saved.pop(0))
        return sha256

    def log(self, text: str) -> None:
        """Add a line to run.log."""
        stream = write.Stream(self.path / "run.log")
        try:
            stream.append((text.rstrip("\n") + "\n").encode())
        finally:
            stream.close()

    def log_exception(self, error: BaseException) -> None:
        """Add where an error came from to run.log."""
        self.log("".join(traceback.format_exception(error)))

    def finish(self, result: RunResult) -> bool:
        """State the result and publish it; False if another attempt did so before."""
        self.sync()
        self.end(result)
        run_dir = self.path.parents[1]
        return write.publish(self.path / "run.json", run_dir / "run.json")

    def end(self, summary: AttemptSummary) -> None:
        """State how the attempt ended, of which number and rows it was; only the log follows."""
        stated = replace(summary, attempt=self.number, rows=dict(self._rows))
        content = write.to_json(stated.to_json())
        try:
            write.new_file(self.path / "run.json", content)
        finally:
            self.close()

    def close(self) -> None:
        """Give the open files back."""
        while self._open:
            self._open.pop().close()

    def _begin(self, table: str, row: Mapping[str, Any]) -> None:
        if "step" not in row:
            raise ValueError(f"{table}: a row needs a `step`; it has {sorted(row)}")
        kinds = {name: _kind(value) for name, value in row.items() if name != "step"}
        schema = pa.schema([("step", pa.int64()), *kinds.items()])
        stream = self._stream(self.path / f"{table}.arrow")
        self._tables[table] = schema, stream
        stream.append(schema.serialize().to_pybytes())

    def _stream(self, path: Path) -> write.Stream:
        stream = write.Stream(path)
        self._open.append(stream)
        return stream


def _kind(value: Any) -> pa.DataType:
    if isinstance(value, list) and not value:
        return pa.list_(pa.string())
    return pa.float64() if isinstance(value, (int, float)) else pa.scalar(value).type


def _state_identity(run_dir: Path, identity: Mapping[str, Any]) -> None:
    path = run_dir / "config.yaml"
    if not path.exists():
        # Another process may state it first; what it stated is compared below.
        with suppress(FileExistsError):
            write.new_file(path, yaml.safe_dump(plain(identity), sort_keys=False).encode())
    if canonical(Record(run_dir).identity) != canonical(identity):
        raise RecordError(
            f"{path} describes another run than the one to be written there; move that directory "
            "away, or choose another runs_dir"
        )
