"""Safe reading of a run's directory: only plain files inside of it, of a bounded size.

A record may come from somebody else. So no path leads outside of it, no device or pipe is read,
nothing larger than expected is read, and values are checked for their form.
"""

import itertools
import json
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import yaml

from attnlab.errors import RecordError
from attnlab.run_record.batches import batch_checksum
from attnlab.run_record.forms import SEAL, form_fault, unseal
from attnlab.run_record.identity import plain_config

Content = TypeVar("Content")

MOST_TEXT = 64 << 20
"""Largest size of a JSON or YAML file in bytes."""
MOST_ROWS = 8 << 30
"""Largest size of a table of rows in bytes."""
TEXTS, WHOLES = pa.list_(pa.string()), pa.list_(pa.int64())
COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "patterns": {
        "probe": pa.string(),
        "source": pa.string(),
        "tokens": TEXTS,
        "reading": TEXTS,
        "roles": TEXTS,
        "query_at": WHOLES,
        "asked_at": pa.float64(),
        "heads": pa.float64(),
        "numbers": WHOLES,
        "codes": pa.binary(),
    },
    "heads": {"layer": pa.string(), "measure": pa.string(), "heads": pa.list_(pa.float64())},
    "vectors": {
        "names": TEXTS,
        "width": pa.float64(),
        "largest": pa.list_(pa.float64()),
        "codes": pa.binary(),
    },
}
"""The columns, besides the step, of the tables that have columns other than numbers."""
LATER_COLUMNS = {"reading", "roles", "numbers", "names"}
"""Columns that earlier versions did not write."""
OF_NUMBERS = re.compile(r"train|validation|test(_\w+)?")
"""The names of tables whose columns are all numbers."""
MOST_UNPACKED = 1 << 30
"""Largest size of a row's codes in bytes, after decompression."""
MOST_TRIES = 1000
"""Number of positions at which a message is looked for after one that cannot be read."""
RECORD_BATCH = 3
"""The type of a message that holds rows (Arrow's Message.fbs)."""
CONTINUES = b"\xff\xff\xff\xff"
"""The first bytes of each message of an Arrow stream."""
BEGINS = re.compile(rb"\xff{4}(?!\xff)")
"""A possible start of a message: the length that follows it is not negative."""


def read_plain_file(
    path: Path, run_dir: Path, max_bytes: int, exact_bytes: int | None = None
) -> bytes:
    """Return the content of a file of a run.

    Raises FileNotFoundError if there is none, and RecordError if it cannot be read, is no plain
    file inside of the run's directory, is larger than `max_bytes`, or is not of `exact_bytes`.
    """
    real_run_dir = os.path.realpath(run_dir)
    if not os.path.realpath(path).startswith(real_run_dir + os.sep):
        raise RecordError(f"{path} lies outside of its run; remove it")
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            file_status = os.fstat(file.fileno())
            if not stat.S_ISREG(file_status.st_mode):
                raise RecordError(f"{path} is no file; remove it")
            if exact_bytes is not None and file_status.st_size != exact_bytes:
                raise RecordError(f"{path} has {file_status.st_size} bytes, not {exact_bytes}")
            if file_status.st_size > max_bytes:
                raise RecordError(
                    f"{path} has {file_status.st_size:,} bytes; at most {max_bytes:,} are expected"
                )
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise RecordError(f"{path} does not fit into memory") from error


def _open_without_waiting(path: str, _: int) -> int:
    """Open a file for reading, without waiting for a writer if it is a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read_json_object(path: Path, run_dir: Path, form: Any) -> dict[str, Any] | None:
    """Load a JSON object of a form; None if there is no such file.

    Raises RecordError if it is damaged, has another form, or was written by a newer attnlab.
    """
    return read_json_file(path, run_dir, lambda value, path: unseal(value, path, form))


def read_json_file(
    path: Path, run_dir: Path, from_json: Callable[[Any, Path], Content]
) -> Content | None:
    """Load a JSON file and return what `from_json` makes of it; None if there is no such file.

    Raises RecordError if it is damaged, and whatever `from_json` raises.
    """
    try:
        value = json.loads(read_plain_file(path, run_dir, MOST_TEXT))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error
    return from_json(value, path)


def read_yaml_object(path: Path, run_dir: Path, form: Any) -> dict[str, Any]:
    """Load a YAML mapping of a form.

    Raises RecordError if there is no such file, or if it is damaged or has another form.
    """
    try:
        value = yaml.load(read_plain_file(path, run_dir, MOST_TEXT), _AliasFreeLoader)
        value = plain_config(value)
    except FileNotFoundError as error:
        raise RecordError(f"{run_dir} is no run: it has no {path.name}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is damaged; move that run away") from error
    fault_text = form_fault(value, form) if isinstance(value, dict) else "it is no mapping"
    if fault_text:
        raise RecordError(
            f"{path} is damaged ({fault_text}); move that run away and train it again"
        )
    return value


def read_rows(path: Path, run_dir: Path, is_sealed: bool) -> pa.Table | None:
    """Load the complete batches of a stream, without the torn end of a killed write.

    None if there is no such file, or no batch in it yet. Raises RecordError if it is damaged: a
    batch does not have its checksum, or cannot be read although others follow it.
    """
    try:
        stream = read_plain_file(path, run_dir, MOST_ROWS)
    except FileNotFoundError:
        return None
    _require_uncompressed(stream, path)
    batches = _read_batches(stream, path, is_sealed)
    if not batches:
        return None
    table = pa.Table.from_batches(batches)
    if "step" not in table.column_names or table.schema.field("step").type != pa.int64():
        raise RecordError(f"{path} is damaged: it has no column of steps")
    if column_faults := _column_faults(path.stem, table.schema):
        raise RecordError(f"{path} is damaged: {', '.join(column_faults)}")
    return table


def _read_batches(stream: bytes, path: Path, is_sealed: bool) -> list[pa.RecordBatch]:
    """Return the complete batches of a stream. Raises RecordError where `read_rows` states."""
    buffer, batches, valid_end = pa.BufferReader(stream), [], 0
    try:
        reader = pa.ipc.open_stream(buffer)
        valid_end = buffer.tell()
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            # An invalid batch may crash code that computes with it.
            batch.validate(full=True)
            stated_checksum = (dict(metadata) if metadata else {}).get(SEAL.encode())
            if is_sealed and stated_checksum != batch_checksum(batch).encode():
                raise RecordError(f"{path} is damaged: its batch {len(batches) + 1} is not whole")
            batches.append(batch)
            valid_end = buffer.tell()
    except StopIteration:
        if valid_end != len(stream):
            raise RecordError(f"{path} ends after {valid_end} of its {len(stream)} bytes") from None
    except RecordError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if not _is_torn(stream[valid_end:]):
            raise RecordError(
                f"{path} is damaged after {valid_end} of its {len(stream)} bytes"
            ) from error
    return batches


def _column_faults(table: str, schema: pa.Schema) -> list[str]:
    """Return a fault for each column of a table that is missing or has another type."""
    column_types = {field.name: field.type for field in schema}
    if OF_NUMBERS.fullmatch(table):
        number_types = (pa.int64(), pa.float64())
        return [
            f"{name} is no number"
            for name, column_type in column_types.items()
            if column_type not in number_types
        ]
    expected_types = {
        name: column_type
        for name, column_type in COLUMNS.get(table, {}).items()
        if name in column_types or name not in LATER_COLUMNS
    }
    return [
        f"{name} is not {column_type}"
        for name, column_type in expected_types.items()
        if column_types.get(name) != column_type
    ]


def _is_torn(stream_end: bytes) -> bool:
    """Return whether the end of a stream can be the start of one message, cut off by a kill."""
    if not (
        CONTINUES.startswith(stream_end[:4])
        and (len(stream_end) < 4 or stream_end.startswith(CONTINUES))
    ):
        return False
    # Not torn, if the end itself is a complete message, which could not be read all the same, or if
    # it contains one: a later message was written, so the first one had been written completely.
    message_starts = itertools.islice(BEGINS.finditer(stream_end), MOST_TRIES)
    return not any(_is_message(stream_end, match.start()) for match in message_starts)


def _is_message(stream: bytes, start: int) -> bool:
    try:
        pa.ipc.read_message(pa.BufferReader(pa.py_buffer(stream).slice(start)))
    except (pa.ArrowException, OSError, EOFError):
        return False
    return True


def _require_uncompressed(stream: bytes, path: Path) -> None:
    """Raise RecordError for compressed messages, before they are unpacked.

    A record never has them.
    """
    buffer = pa.BufferReader(stream)
    reader = pa.ipc.MessageReader.open_stream(buffer)
    try:
        for message in reader:
            if _is_compressed(message.metadata.to_pybytes()):
                raise RecordError(f"{path} is compressed, as no record is; remove it")
    except (pa.ArrowException, OSError, EOFError, struct.error, IndexError):
        # A torn or damaged end; `read_rows` reports it.
        return


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a message's header, a FlatBuffers table, states a compression.

    Its fields are those of Arrow's Message.fbs and Schema.fbs.
    """

    def read_number(offset: int, number_format: str) -> int:
        return struct.unpack_from("<" + number_format, metadata, offset)[0]

    def field_offset(table: int, index: int) -> int:
        """Return the offset of a table's field, by its index; 0 if it is left out."""
        slots = table - read_number(table, "i")
        slot = 4 + 2 * index
        offset = read_number(slots + slot, "H") if slot < read_number(slots, "H") else 0
        return offset and table + offset

    root = read_number(0, "I")
    message_type, header = field_offset(root, 1), field_offset(root, 2)
    if not message_type or metadata[message_type] != RECORD_BATCH or not header:
        return False
    return bool(field_offset(header + read_number(header, "I"), 3))


@contextmanager
def refuse_damaged_rows(record_path: Path, table: str) -> Iterator[None]:
    """Raise RecordError for errors in decoding the rows of a table."""
    try:
        yield
    except (LookupError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        if isinstance(error, RecordError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise RecordError(f"{record_path}: the rows of {table} are damaged ({reason})") from error


def decompress_codes(codes: bytes, num_bytes: int) -> bytes:
    """Return the codes of a row, decompressed to `num_bytes`. Raises ValueError for a bad size."""
    if not 0 <= num_bytes <= MOST_UNPACKED:
        raise ValueError(
            f"{num_bytes} bytes are to be unpacked; at most {MOST_UNPACKED} are expected"
        )
    try:
        return pa.decompress(codes, decompressed_size=num_bytes, codec="zstd", asbytes=True)
    except OSError as error:
        raise ValueError(str(error)) from error


class _AliasFreeLoader(yaml.SafeLoader):
    """Loads YAML without aliases: we write none, and they can expand without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)
