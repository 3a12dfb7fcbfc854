"""One process's attempt at a run: it writes in its own directory, and rewrites nothing."""

import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import yaml

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.batches import serialize_batch
from attnlab.run_record.forms import seal
from attnlab.run_record.holder import claim_of_this_process
from attnlab.run_record.identity import canonical_json, identity_hash, plain_config
from attnlab.run_record.record import Record, attempt_numbers, checkpoint_name
from attnlab.run_record.result import AttemptProvenance, RunResult

BEAT_SECONDS = 1.0
CHECKPOINTS_KEPT = 2
"""Number of checkpoints that an attempt keeps: if the newest is damaged, the older one is left."""


class AlreadyClaimed(Exception):
    """Another process began the same attempt a moment earlier."""


class Attempt:
    """The right to write `attempts/<number>/` of a run, until it ends."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.name)
        self._beat_file = write.BeatFile(path / "beat")
        self._num_beats, self._beat_time, self._step = 0, float("-inf"), -1
        self._tables: dict[str, tuple[pa.Schema, write.Stream]] = {}
        self._num_rows: Counter[str] = Counter()
        self._manifest: write.Stream | None = None
        self._checkpoints: list[Path] = []
        self._open: list[write.BeatFile | write.Stream] = [self._beat_file]

    @classmethod
    def claim(
        cls,
        run_dir: Path,
        identity: Mapping[str, Any],
        resumed_from: Mapping[str, Any] | None = None,
        *,
        last_known_attempt: int | None = None,
    ) -> "Attempt":
        """Begin the next attempt of a run, whose directory is made if it is new.

        `last_known_attempt` is the number of the last attempt that the caller knew of when it
        decided to go on: if another attempt has begun since, that one has the right. Raises
        AlreadyClaimed if another process took the number, RecordError if the directory holds
        another identity.
        """
        write.make_directory(run_dir / "attempts")
        _write_or_check_identity(run_dir, identity)
        if last_known_attempt is None:
            last_known_attempt = max(attempt_numbers(run_dir), default=0)
        number = last_known_attempt + 1
        claim_fields = {
            **claim_of_this_process(),
            "resumed_from": dict(resumed_from) if resumed_from else None,
            "identity_hash": identity_hash(identity),
        }
        path = run_dir / "attempts" / str(number)
        try:
            write.publish_directory(path, {"claim.json": write.json_bytes(seal(claim_fields))})
        except FileExistsError as error:
            raise AlreadyClaimed(f"attempt {number} of {run_dir} is taken") from error
        return cls(path)

    def beat(self, step: int) -> None:
        """Write a sign of life: after every step, and within a step at most once a second.

        From it, a reader knows at which step an attempt died.
        """
        now = monotonic()
        if step != self._step or now - self._beat_time >= BEAT_SECONDS:
            self._num_beats, self._beat_time, self._step = self._num_beats + 1, now, step
            self._beat_file.write(self._num_beats, step)

    def append(self, table: str, rows: Sequence[Mapping[str, Any]], durable: bool = False) -> None:
        """Append rows to a table, an Arrow stream with the columns of the first row.

        Numbers are stored as float64, except the step, which is int64; an empty list in the first
        row is one of texts. Raises ValueError for a row without a step or with other columns.
        """
        if not rows:
            return
        if table not in self._tables:
            self._begin_table(table, first_row=rows[0])
        schema, stream = self._tables[table]
        for row in rows:
            if set(row) != set(schema.names):
                raise ValueError(
                    f"{table}: a row has the columns {sorted(row)}, but the table began with "
                    f"{sorted(schema.names)}; give the rows of one table the same columns"
                )
        columns = [
            pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names
        ]
        stream.append(serialize_batch(pa.record_batch(columns, schema=schema)))
        self._num_rows[table] += len(rows)
        if durable:
            stream.sync()

    def sync(self) -> None:
        """Wait until all rows so far are on the disk."""
        for _, stream in self._tables.values():
            stream.sync()

    def save(self, step: int, content: bytes) -> str:
        """Write a checkpoint after all rows so far, delete the oldest, and return its SHA-256."""
        self.sync()
        directory = self.path / "checkpoints"
        write.make_directory(directory)
        path = directory / checkpoint_name(step)
        sha256 = hashlib.sha256(content).hexdigest()
        write.create_file(path, content)
        entry = {"step": step, "file": path.name, "size": len(content), "sha256": sha256}
        entry["rows"] = dict(self._num_rows)
        if self._manifest is None:
            self._manifest = self._open_stream(directory / "manifest.jsonl")
        self._manifest.append((json.dumps(entry) + "\n").encode())
        self._manifest.sync()
        self._checkpoints.append(path)
        while len(self._checkpoints) > CHECKPOINTS_KEPT:
            write.remove_file(self._checkpoints.pop(0))
        return sha256

    def log(self, text: str) -> None:
        """Append a line to run.log."""
        stream = write.Stream(self.path / "run.log")
        try:
            stream.append((text.rstrip("\n") + "\n").encode())
        finally:
            stream.close()

    def log_exception(self, error: BaseException) -> None:
        """Append the traceback of an error to run.log."""
        self.log("".join(traceback.format_exception(error)))

    def finish(self, result: RunResult) -> bool:
        """Write the result and publish it; return False if another attempt did so before.

        Raises RecordError, and writes nothing, for a result that could not be read again.
        """
        RunResult.from_json(result.to_json(), self.path / "run.json")
        self.sync()
        self.end(result)
        run_dir = self.path.parents[1]
        return write.publish_file(self.path / "run.json", run_dir / "run.json")

    def end(self, provenance: AttemptProvenance) -> None:
        """Write how the attempt ended, with its number and rows; only the log can follow."""
        final_provenance = replace(provenance, attempt=self.number, rows=dict(self._num_rows))
        run_json = write.json_bytes(final_provenance.to_json())
        try:
            write.create_file(self.path / "run.json", run_json)
        finally:
            self.close()

    def close(self) -> None:
        """Close the open files."""
        while self._open:
            self._open.pop().close()

    def _begin_table(self, table: str, first_row: Mapping[str, Any]) -> None:
        """Open the stream of a table, and write its schema: the columns of its first row."""
        if "step" not in first_row:
            raise ValueError(f"{table}: a row needs a `step`; it has {sorted(first_row)}")
        column_types = {
            name: _column_type(value) for name, value in first_row.items() if name != "step"
        }
        schema = pa.schema([("step", pa.int64()), *column_types.items()])
        stream = self._open_stream(self.path / f"{table}.arrow")
        self._tables[table] = schema, stream
        stream.append(schema.serialize().to_pybytes())

    def _open_stream(self, path: Path) -> write.Stream:
        stream = write.Stream(path)
        self._open.append(stream)
        return stream


def _column_type(value: Any) -> pa.DataType:
    if isinstance(value, list) and not value:
        return pa.list_(pa.string())
    return pa.float64() if isinstance(value, (int, float)) else pa.scalar(value).type


def _write_or_check_identity(run_dir: Path, identity: Mapping[str, Any]) -> None:
    """Write config.yaml, or raise RecordError if it is there and has another identity."""
    path = run_dir / "config.yaml"
    if not path.exists():
        # Another process may write the file first; its content is compared below.
        with suppress(FileExistsError):
            write.create_file(
                path, yaml.safe_dump(plain_config(identity), sort_keys=False).encode()
            )
    if canonical_json(Record(run_dir).identity) != canonical_json(identity):
        raise RecordError(
            f"{path} describes another run than the one to be written there; move that directory "
            "away, or choose another runs_dir"
        )
