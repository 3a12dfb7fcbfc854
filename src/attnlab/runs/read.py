"""All that is read of a run's directory: what lies in it, is a plain file, and has a sane size.

A record may come from somebody else. So a path in it leads nowhere outside, a device or a pipe is
not opened, nothing larger than what is expected is read, and values have the form that they should.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from attnlab.errors import RecordError
from attnlab.runs.batches import batch_sum
from attnlab.runs.forms import SCHEMA, SEAL, fault, is_whole
from attnlab.runs.identity import plain

MOST_TEXT = 64 << 20
"""Bytes of a JSON or YAML file."""
MOST_ROWS = 8 << 30
"""Bytes of a table of rows."""
OF_MORE_THAN_NUMBERS = ("patterns", "heads", "vectors")
"""The tables that hold other things than numbers."""
MOST_UNPACKED = 1 << 30
"""Bytes of what a row holds packed."""
CONTINUES = b"\xff\xff\xff\xff"
"""How each message of an Arrow stream begins."""


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
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RecordError(f"{path} is no file; remove it")
            if exactly is not None and found.st_size != exactly:
                raise RecordError(f"{path} has {found.st_size} bytes, not {exactly}")
            if found.st_size > most:
                raise RecordError(
                    f"{path} has {found.st_size:,} bytes; at most {most:,} are expected"
                )
            return opened.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})") from error


def _without_waiting(path: str, _: int) -> int:
    """Open a file to read; of a pipe, without waiting for somebody who writes into it."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def json_object(path: Path, run_dir: Path, form: Any) -> dict[str, Any] | None:
    """Read a JSON object of a form; None where there is no such file.

    Raises RecordError where it is damaged, has another form, or was written by a newer attnlab.
    """
    try:
        value = json.loads(content(path, run_dir, MOST_TEXT))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or schema < 1:
        raise RecordError(f"{path} is no record of attnlab; move it away")
    if schema > SCHEMA:
        raise RecordError(
            f"{path} was written by a newer attnlab (schema {schema}, this one reads "
            f"{SCHEMA}); upgrade attnlab"
        )
    if wrong := fault(value, form):
        raise RecordError(f"{path} is damaged ({wrong}); move that run away")
    # Before schema 2 nothing was sealed.
    if schema > 1 and not is_whole(value):
        raise RecordError(
            f"{path} is damaged (it does not have the SHA-256 that it states); move that run away"
        )
    value.pop(SEAL, None)
    return value


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
    texts = [field.name for field in table.schema if field.type not in (pa.int64(), pa.float64())]
    if texts and path.stem not in OF_MORE_THAN_NUMBERS:
        raise RecordError(f"{path} is damaged: {', '.join(texts)} are no numbers")
    return table


def _is_torn(end: bytes) -> bool:
    """Whether the end of a stream can be the beginning of one message that a kill cut off."""
    if not (CONTINUES.startswith(end[:4]) and (len(end) < 4 or end.startswith(CONTINUES))):
        return False
    # All of it is there, and still it could not be read; or a whole message further on was written
    # after this one, so this one was whole too.
    at = 0
    while at != -1:
        if _is_message(end, at):
            return False
        at = end.find(CONTINUES, at + 4)
    return True


def _is_message(stream: bytes, at: int) -> bool:
    try:
        pa.ipc.read_message(pa.BufferReader(pa.py_buffer(stream).slice(at)))
    except (pa.ArrowException, OSError, EOFError):
        return False
    return True


@contextmanager
def decoding(record: Path, table: str) -> Iterator[None]:
    """Raise RecordError where rows of a table do not hold what they should."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        if isinstance(error, RecordError):
            raise
        said = f"{type(error).__name__}: {error}"
        raise RecordError(f"{record}: the rows of {table} are damaged ({said})") from error


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
