"""All that is read of a run's directory: what lies in it, is a plain file, and has a sane size.

A record may come from somebody else. So a path in it leads nowhere outside, a device or a pipe is
not opened, nothing larger than what is expected is read, and values have the form that they should.
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
from attnlab.run_record.batches import batch_sum
from attnlab.run_record.forms import SEAL, checked, fault
from attnlab.run_record.identity import plain

Content = TypeVar("Content")

MOST_TEXT = 64 << 20
"""Bytes of a JSON or YAML file."""
MOST_ROWS = 8 << 30
"""Bytes of a table of rows."""
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
        "width": pa.float64(),
        "largest": pa.list_(pa.float64()),
        "codes": pa.binary(),
    },
}
"""The columns, beside the step, of the tables that hold more than numbers."""
LATER_COLUMNS = {"reading", "roles", "numbers"}
"""Those that earlier versions did not write."""
OF_NUMBERS = re.compile(r"train|validation|test(_\w+)?")
"""The tables whose columns are all numbers."""
MOST_UNPACKED = 1 << 30
"""Bytes of what a row holds packed."""
MOST_TRIES = 1000
"""Places at which a message is looked for behind one that cannot be read."""
RECORD_BATCH = 3
"""The kind of a message that holds rows (Arrow's Message.fbs)."""
CONTINUES = b"\xff\xff\xff\xff"
"""How each message of an Arrow stream begins."""
BEGINS = re.compile(rb"\xff{4}(?!\xff)")
"""Where one may begin: the length that follows is no negative number."""


def content(path: Path, run_dir: Path, most: int, exactly: int | None = None) -> bytes:
    """Return what is in a file of a run.

    Raises FileNotFoundError where there is none, and RecordError for what cannot be read, is no
    plain file inside the run's directory, is larger than `most` bytes or has not `exactly` as many.
    """
    inside = os.path.realpath(run_dir)
    if not os.path.realpath(path).startswith(inside + os.sep):
        raise RecordError(f"{path} lies outside of its run; remove it")
    try:
        with open(path, "rb", opener=_without_waiting) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RecordError(f"{path} is no file; remove it")
            if exactly is not None and status.st_size != exactly:
                raise RecordError(f"{path} has {status.st_size} bytes, not {exactly}")
            if status.st_size > most:
                raise RecordError(
                    f"{path} has {status.st_size:,} bytes; at most {most:,} are expected"
                )
            return opened.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise RecordError(f"{path} does not fit into memory") from error


def _without_waiting(path: str, _: int) -> int:
    """Open a file to read; of a pipe, without waiting for somebody who writes into it."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def json_object(path: Path, run_dir: Path, form: Any) -> dict[str, Any] | None:
    """Read a JSON object of a form; None where there is no such file.

    Raises RecordError where it is damaged, has another form, or was written by a newer attnlab.
    """
    return json_file(path, run_dir, lambda value, path: checked(value, path, form))


def json_file(
    path: Path, run_dir: Path, from_json: Callable[[Any, Path], Content]
) -> Content | None:
    """Read a JSON file as `from_json` understands it; None where there is no such file.

    Raises RecordError where it is damaged, and what `from_json` raises.
    """
    try:
        value = json.loads(content(path, run_dir, MOST_TEXT))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error
    return from_json(value, path)


def yaml_object(path: Path, run_dir: Path, form: Any) -> dict[str, Any]:
    """Read a YAML mapping of a form.

    Raises RecordError where there is none, and where it is damaged or has another form.
    """
    try:
        value = yaml.load(content(path, run_dir, MOST_TEXT), _Plain)
        value = plain(value)
    except FileNotFoundError as error:
        raise RecordError(f"{run_dir} is no run: it has no {path.name}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is damaged; move that run away") from error
    wrong = fault(value, form) if isinstance(value, dict) else "it is no mapping"
    if wrong:
        raise RecordError(f"{path} is damaged ({wrong}); move that run away and train it again")
    return value


def rows(path: Path, run_dir: Path, is_sealed: bool) -> pa.Table | None:
    """Read the whole batches of a stream; the torn end of a killed write is left out.

    None where there is no such file, or nothing in it yet. Raises RecordError where it is damaged:
    a batch does not have its sum, or is followed by others though it cannot be read.
    """
    try:
        stream = content(path, run_dir, MOST_ROWS)
    except FileNotFoundError:
        return None
    source, batches, sound = pa.BufferReader(stream), [], 0
    _require_plain(stream, path)
    try:
        reader = pa.ipc.open_stream(source)
        sound = source.tell()
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            # What is not valid may crash whatever computes with it.
            batch.validate(full=True)
            stated = (dict(metadata) if metadata else {}).get(SEAL.encode())
            if is_sealed and stated != batch_sum(batch).encode():
                raise RecordError(f"{path} is damaged: its batch {len(batches) + 1} is not whole")
            batches.append(batch)
            sound = source.tell()
    except StopIteration:
        if sound != len(stream):
            raise RecordError(f"{path} ends after {sound} of its {len(stream)} bytes") from None
    except RecordError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if not _is_torn(stream[sound:]):
            raise RecordError(
                f"{path} is damaged after {sound} of its {len(stream)} bytes"
            ) from error
    if not batches:
        return None
    table = pa.Table.from_batches(batches)
    if "step" not in table.column_names or table.schema.field("step").type != pa.int64():
        raise RecordError(f"{path} is damaged: it has no column of steps")
    if wrong := _wrong_columns(path.stem, table.schema):
        raise RecordError(f"{path} is damaged: {', '.join(wrong)}")
    return table


def _wrong_columns(table: str, schema: pa.Schema) -> list[str]:
    types = {field.name: field.type for field in schema}
    if OF_NUMBERS.fullmatch(table):
        numbers = (pa.int64(), pa.float64())
        return [f"{name} is no number" for name, kind in types.items() if kind not in numbers]
    columns = COLUMNS.get(table, {})
    expected = {n: kind for n, kind in columns.items() if n in types or n not in LATER_COLUMNS}
    return [f"{n} is not {kind}" for n, kind in expected.items() if types.get(n) != kind]


def _is_torn(end: bytes) -> bool:
    """Whether the end of a stream can be the beginning of one message that a kill cut off."""
    if not (CONTINUES.startswith(end[:4]) and (len(end) < 4 or end.startswith(CONTINUES))):
        return False
    # All of it is there, and still it could not be read; or a whole message further on was written
    # after this one, so this one was whole too.
    begins = itertools.islice(BEGINS.finditer(end), MOST_TRIES)
    return not any(_is_message(end, match.start()) for match in begins)


def _is_message(stream: bytes, at: int) -> bool:
    try:
        pa.ipc.read_message(pa.BufferReader(pa.py_buffer(stream).slice(at)))
    except (pa.ArrowException, OSError, EOFError):
        return False
    return True


def _require_plain(stream: bytes, path: Path) -> None:
    """Refuse compressed messages, which we never write, before they are unpacked.

    Raises RecordError.
    """
    source = pa.BufferReader(stream)
    reader = pa.ipc.MessageReader.open_stream(source)
    try:
        for message in reader:
            if _is_compressed(message.metadata.to_pybytes()):
                raise RecordError(f"{path} is compressed, as no record is; remove it")
    except (pa.ArrowException, OSError, EOFError, struct.error, IndexError):
        # A torn or damaged end, which is told where the batches are read.
        return


def _is_compressed(metadata: bytes) -> bool:
    """Look into the header of a message, a FlatBuffers table (Arrow's Message.fbs, Schema.fbs)."""

    def number(at: int, kind: str) -> int:
        return struct.unpack_from("<" + kind, metadata, at)[0]

    def field(table: int, place: int) -> int:
        """Return where a field of a table lies; 0 where it is left out."""
        slots = table - number(table, "i")
        slot = 4 + 2 * place
        offset = number(slots + slot, "H") if slot < number(slots, "H") else 0
        return offset and table + offset

    root = number(0, "I")
    kind, header = field(root, 1), field(root, 2)
    if not kind or metadata[kind] != RECORD_BATCH or not header:
        return False
    return bool(field(header + number(header, "I"), 3))


@contextmanager
def decoding(record: Path, table: str) -> Iterator[None]:
    """Raise RecordError where rows of a table do not hold what they should."""
    try:
        yield
    except (LookupError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        if isinstance(error, RecordError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise RecordError(f"{record}: the rows of {table} are damaged ({reason})") from error


def decompressed(codes: bytes, size: int) -> bytes:
    """Unpack what a row holds. Raises ValueError for a size that no row should have."""
    if not 0 <= size <= MOST_UNPACKED:
        raise ValueError(f"{size} bytes are to be unpacked; at most {MOST_UNPACKED} are expected")
    try:
        return pa.decompress(codes, decompressed_size=size, codec="zstd", asbytes=True)
    except OSError as error:
        raise ValueError(str(error)) from error


class _Plain(yaml.SafeLoader):
    """Reads YAML without aliases: what we write has none, and some would never end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)
