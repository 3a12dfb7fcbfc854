"""Files of JSON lines beside a record, which are only ever appended to.

A killed write leaves a torn line, which readers pass over, and after which the next line begins
anew. A line is written by one system call, so those of two writers never mix.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attnlab.run_record import write
from attnlab.run_record.read import MOST_TEXT, read_plain_file


def read_values(path: Path) -> list[Any]:
    """Return the values of the lines that can be read; none where there is no file.

    Raises RecordError for a file that is no plain file of its directory, or too large.
    """
    values = []
    for line in _read_or_empty(path).split(b"\n"):
        with suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return values


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line; it is on the disk when this returns. Raises RecordError as `read_values`."""
    content = _read_or_empty(path)
    separator = b"\n" if content and not content.endswith(b"\n") else b""
    stream = write.Stream(path)
    try:
        stream.append(separator + json.dumps(entry).encode() + b"\n")
        stream.sync()
    finally:
        stream.close()


def _read_or_empty(path: Path) -> bytes:
    # Most runs have no such file, and asking for that first is the quickest answer.
    if not os.path.lexists(path):
        return b""
    try:
        return read_plain_file(path, path.parent, MOST_TEXT)
    except FileNotFoundError:
        return b""
