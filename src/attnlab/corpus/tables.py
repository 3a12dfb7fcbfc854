"""Tables in files, row by row: CSV, TSV, JSON and Parquet; a cell is what stands there.

A table has the ending of `KINDS`, in any letters, and may be packed (.csv.gz, .jsonl.zst); Parquet
is packed in itself. In CSV and TSV every cell is a text: NA, null and nan are words, and an empty
cell is an empty text. CSV quotes cells; TSV has no quotes, as GLUE writes it. JSON is an object on
each line, an array of objects or of texts, or an object of columns.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from attnlab.corpus import files

KINDS = {
    **dict.fromkeys((".csv",), "csv"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".jsonlines", ".jl", ".ldjson"), "json"),
    **dict.fromkeys((".parquet", ".parq", ".pq"), "parquet"),
}
"""What an ending says of a table."""
LONGEST = 1 << 30
"""Characters in the longest cell of a CSV."""
BATCH = 1000
"""Rows of Parquet that are converted at once."""
SHOWN = 40
"""Columns of a table, and characters of a column's name, that a message shows."""
TEXT = "text"
"""The column that an array of texts is."""


class Row(NamedTuple):
    """The asked cells of a row, None where there is none, and where it stands in its file."""

    place: str
    cells: list[Any]


def kind(name: str) -> str | None:
    """Return what table a file's name says it is; None for a plain text."""
    return KINDS.get(Path(files.plain_name(name)).suffix)


def rows(path: Path, columns: Sequence[Sequence[str]], encoding: str = "utf-8") -> Iterator[Row]:
    """Yield the rows of a table: of each of `columns` the first of its names that there is.

    Raises ValueError where the table has none of them, or cannot be read: which line, and why.
    """
    form = kind(path.name)
    if form == "parquet":
        yield from _parquet(path, columns)
        return
    # What is not of the encoding is told by its line, when it is asked for.
    errors, newline = "surrogateescape", "" if form == "csv" else "\n"
    with (
        files.opened(path) as file,
        io.TextIOWrapper(file, encoding, errors=errors, newline=newline) as text,
    ):
        reader = {"csv": _csv, "tsv": _tsv, "json": _json}[form or "csv"]
        yield from reader(path, text, columns)


def text_of(cell: Any, column: str, where: str) -> str:
    """Return a cell that is a text. Raises ValueError where it is none."""
    if not isinstance(cell, str):
        raise ValueError(f"{where}: column={column!r} holds {type_of(cell)}, not text")
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        # A byte that cannot be decoded has been read as such a code (PEP 383).
        byte = ord(cell[error.start]) - 0xDC00
        told = "half of a character (a surrogate) is no text; mend it"
        if 0x80 <= byte <= 0xFF:
            told = f"byte {byte:#04x} is not of the file's encoding; convert it to UTF-8"
        raise ValueError(f"{where}: {told}") from error
    return cell


def type_of(cell: Any) -> str:
    """Return the name that Arrow has for the type of a value."""
    import pyarrow as pa

    try:
        return str(pa.scalar(cell).type)
    except (pa.ArrowException, OverflowError):
        return type(cell).__name__


def column_of(names: Sequence[str], there: Sequence[str], path: str) -> str:
    """Return the first of the names that a table has. Raises ValueError where it has none."""
    for name in names:
        if name in there:
            if list(there).count(name) > 1:
                raise ValueError(f"{path} has several columns named {name!r}; rename all but one")
            return name
    told = " or ".join(map(repr, names))
    shown = [name if len(name) <= SHOWN else f"{name[:SHOWN]}..." for name in there[:SHOWN]]
    more = ["..."] if len(there) > SHOWN else []
    raise ValueError(
        f"column={told} is not in {path}; there is {', '.join([*shown, *more]) or 'none'}"
    )


class _Lines:
    """Counts the lines that a reader takes, and knows whether it has asked beyond the last."""

    def __init__(self, path: Path, text: io.TextIOBase) -> None:
        self.path, self.text = path, text
        self.count, self.last, self.ended = 0, "", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.last = self.text.readline()
        if not self.last:
            self.ended = True
            raise StopIteration
        self.count += 1
        if "\0" in self.last:
            raise ValueError(
                f"{self.path}, line {self.count}, has a zero byte: it is binary, or UTF-16; "
                "convert it to UTF-8"
            )
        return self.last


def _csv(path: Path, text: io.TextIOBase, columns: Sequence[Sequence[str]]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    lines = _Lines(path, text)
    yield from _under_head(path, columns, _csv_rows(path, lines))


def _csv_rows(path: Path, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines)
    while True:
        first = lines.count + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {first}: {error}") from error
        if row is None:
            return
        if lines.ended:
            raise ValueError(f"{path}, line {first}: a quoted cell does not end; close its quote")
        if lines.last.strip():
            yield first, row


def _tsv(path: Path, text: io.TextIOBase, columns: Sequence[Sequence[str]]) -> Iterator[Row]:
    lines = enumerate(_Lines(path, text), start=1)
    bare = ((number, line.removesuffix("\n").rstrip("\r")) for number, line in lines)
    yield from _under_head(path, columns, ((n, line.split("\t")) for n, line in bare if line))


def _under_head(
    path: Path, columns: Sequence[Sequence[str]], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[Row]:
    _, head = next(rows, (0, []))
    if not head:
        raise ValueError(f"{path} is empty")
    places = [head.index(column_of(names, head, str(path))) for names in columns]
    for number, row in rows:
        if len(row) != len(head):
            raise ValueError(f"{path}, line {number}, has {len(row)} columns, not {len(head)}")
        yield Row(f"{path}, line {number}", [row[place] for place in places])


def _json(path: Path, text: io.TextIOBase, columns: Sequence[Sequence[str]]) -> Iterator[Row]:
    """Yield the rows of JSON; a document that is no row on each line is held as a whole."""
    known: set[str] = set()
    number = 0
    for place, entry in _entries(path, text):
        number += 1
        if isinstance(entry, str) and len(columns) == 1 and TEXT in columns[0]:
            entry = {columns[0][0]: entry}
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: it holds {type_of(entry)}, not an object with its columns")
        known |= entry.keys()
        chosen = [next((n for n in names if n in entry), None) for names in columns]
        yield Row(place, [None if name is None else entry[name] for name in chosen])
    if not number:
        raise ValueError(f"{path} has no rows")
    for names in columns:
        column_of(names, sorted(known), str(path))


def _entries(path: Path, text: io.TextIOBase) -> Iterator[tuple[str, Any]]:
    numbered = enumerate(iter(text.readline, ""), start=1)
    lines = ((number, line) for number, line in numbered if line.strip())
    number, line = next(lines, (0, ""))
    if not number:
        return
    # An array or an object that goes over many lines is the only thing there is.
    if line.lstrip()[0] == "[" or line.strip() == "{":
        document, second = _parsed(path, number, line + text.read()), None
    else:
        document, second = _parsed(path, number, line), next(lines, None)
    if second is None:
        entries = document if isinstance(document, list) else _of_columns(path, document)
        yield from ((f"{path}, row {at}", entry) for at, entry in enumerate(entries))
        return
    yield f"{path}, line {number}", document
    for number, line in chain([second], lines):
        yield f"{path}, line {number}", _parsed(path, number, line)


def _parsed(path: Path, number: int, text: str) -> Any:
    """Return the value of a text of JSON that begins at this line of a file."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = number + error.lineno - 1
        told = f"{error.msg.removesuffix(' at')}, at column {error.colno}"
        raise ValueError(f"{path}, line {at}: no JSON: {told}") from error
    except (ValueError, RecursionError) as error:
        told = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}, line {number}: no JSON: {told}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} several times; leave one")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _of_columns(path: Path, document: Any) -> list[Any]:
    if not isinstance(document, dict):
        return [document]
    columns = {name: values for name, values in document.items() if isinstance(values, list)}
    if len(columns) < len(document):
        return [document]
    if len({len(values) for values in columns.values()}) > 1:
        told = ", ".join(f"{name} {len(values):,}" for name, values in columns.items())
        raise ValueError(f"{path} has columns of unlike lengths: {told}")
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _parquet(path: Path, columns: Sequence[Sequence[str]]) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    if path.suffix.lower() in files.PACKED:
        raise ValueError(f"path={path} is a packed Parquet table; unpack it")
    try:
        with ParquetFile(path) as table:
            there = table.schema_arrow.names
            chosen = [column_of(names, there, str(path)) for names in columns]
            number = 0
            for batch in table.iter_batches(BATCH, columns=list(dict.fromkeys(chosen))):
                cells = [batch.column(name).to_pylist() for name in chosen]
                for row in zip(*cells, strict=True):
                    yield Row(f"{path}, row {number}", list(row))
                    number += 1
    except (pa.ArrowException, OSError) as error:
        told = str(error).strip().split("\n")[0]
        raise ValueError(f"path={path} cannot be read: {told}") from error
