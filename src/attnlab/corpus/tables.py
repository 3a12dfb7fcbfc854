"""Tables in files, row by row: CSV, TSV, JSON and Parquet; no cell is converted.

A table's name has an ending of `KINDS`, in upper or lower case, and may be packed (.csv.gz,
.jsonl.zst); a Parquet table may not. In CSV and TSV every cell is a text: NA, null and nan are
words, and an empty cell is an empty text. CSV quotes cells; TSV has no quotes, as GLUE writes it.
JSON is an object on each line, an array of objects or of texts, or an object of columns. A column
NAME.KEY is the entry KEY of a column NAME of objects, as WMT's `translation.de`.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
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
"""The format of a table, by the ending of its name."""
LONGEST = 1 << 30
"""The number of characters in the longest cell of a CSV."""
BATCH = 1000
"""The number of Parquet rows that are converted at once."""
SHOWN = 40
"""The number of a table's columns, and of characters of a column's name, in a message."""
TEXT = "text"
"""The name of the only column of an array of texts."""


class Row(NamedTuple):
    """The requested cells of a row, None for a missing one, and the row's place in its file."""

    location: str
    cells: list[Any]


def kind(name: str) -> str | None:
    """Return the table format that a file's name says; None for a plain text."""
    return KINDS.get(Path(files.unpacked_name(name)).suffix)


def read_rows(
    path: Path, columns: Sequence[Sequence[str]], encoding: str = "utf-8"
) -> Iterator[Row]:
    """Yield the rows of a table; each of `columns` lists names, and the first present is read.

    Raises ValueError if the table has none of a column's names, or, with the line and the reason,
    if it cannot be read.
    """
    table_format = kind(path.name)
    if table_format == "parquet":
        yield from _read_parquet(path, columns)
        return
    # Bytes outside the encoding become surrogates, which `text_of` refuses with their line.
    errors, newline = "surrogateescape", "" if table_format == "csv" else "\n"
    with (
        files.open_text(path) as file,
        io.TextIOWrapper(file, encoding, errors=errors, newline=newline) as text_file,
    ):
        reader = {"csv": _read_csv, "tsv": _read_tsv, "json": _read_json}[table_format or "csv"]
        yield from reader(path, text_file, columns)


def require_text(cell: Any, column: str, row_location: str) -> str:
    """Return a cell that is a text. Raises ValueError if it is not, or not of its encoding."""
    if not isinstance(cell, str):
        raise ValueError(f"{row_location}: column={column!r} holds {type_name(cell)}, not text")
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        # A byte that cannot be decoded has been read as a surrogate (PEP 383).
        byte = ord(cell[error.start]) - 0xDC00
        fault = "half of a character (a surrogate) is no text; mend it"
        if 0x80 <= byte <= 0xFF:
            fault = f"byte {byte:#04x} is not of the file's encoding; convert it to UTF-8"
        raise ValueError(f"{row_location}: {fault}") from error
    return cell


def type_name(cell: Any) -> str:
    """Return Arrow's name for the type of a value."""
    import pyarrow as pa

    try:
        return str(pa.scalar(cell).type)
    except (pa.ArrowException, OverflowError):
        return type(cell).__name__


class MissingColumn(ValueError):
    """A table has none of the names of a column."""

    def __init__(self, names: Sequence[str], table_columns: Sequence[str], path: str) -> None:
        self.names = names
        expected = " or ".join(map(repr, names))
        actual = [
            name if len(name) <= SHOWN else f"{name[:SHOWN]}..." for name in table_columns[:SHOWN]
        ]
        ellipsis = ["..."] if len(table_columns) > SHOWN else []
        close_names = [
            near for name in names for near in get_close_matches(name, table_columns, n=1)
        ]
        hint = f"; did you mean {close_names[0]!r}?" if close_names else ""
        if len(table_columns) == 1 and any(mark in table_columns[0] for mark in ";\t|"):
            hint = "; the cells of a .csv stand between commas, and those of a .tsv between tabs"
        columns = ", ".join([*actual, *ellipsis]) or "none"
        super().__init__(f"column={expected} is not in {path}; there is {columns}{hint}")


def find_column(names: Sequence[str], table_columns: Sequence[str], path: str) -> str:
    """Return the first of the names that a table has; NAME.KEY is an entry of its column NAME.

    Raises ValueError if it has none of them.
    """
    for name in names:
        if name in table_columns:
            if list(table_columns).count(name) > 1:
                raise ValueError(f"{path} has several columns named {name!r}; rename all but one")
            return name
        if name.partition(".")[0] in table_columns:
            return name
    raise MissingColumn(names, table_columns, path)


def outer_column(name: str, table_columns: Sequence[str]) -> str:
    """Return the column of a table in which the cells of a column are."""
    return name if name in table_columns else name.partition(".")[0]


def nested_cell(cell: Any, name: str, column: str, row_location: str) -> Any:
    """Return the cell of the column `name` from that of its outer `column`."""
    if name == column or cell is None:
        return cell
    key = name.removeprefix(f"{column}.")
    if not isinstance(cell, Mapping):
        raise ValueError(
            f"{row_location}: column={column!r} holds {type_name(cell)}, not an object with {key!r}"
        )
    if key not in cell:
        keys = ", ".join(map(str, cell)) or "nothing"
        raise ValueError(f"{row_location}: column={column!r} has no {key!r}; there is {keys}")
    return cell[key]


class _LineCounter:
    """Counts the lines that a reader takes; `ended` once it has tried to read beyond the last."""

    def __init__(self, path: Path, text: io.TextIOBase) -> None:
        self.path, self.text = path, text
        self.count, self.last_line, self.ended = 0, "", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.last_line = self.text.readline()
        if not self.last_line:
            self.ended = True
            raise StopIteration
        self.count += 1
        if "\0" in self.last_line:
            raise ValueError(
                f"{self.path}, line {self.count}, has a zero byte: it is binary, or UTF-16; "
                "convert it to UTF-8"
            )
        return self.last_line


def _read_csv(
    path: Path, text_file: io.TextIOBase, columns: Sequence[Sequence[str]]
) -> Iterator[Row]:
    """Yield the requested cells of a CSV."""
    csv.field_size_limit(LONGEST)
    lines = _LineCounter(path, text_file)
    yield from _rows_under_header(path, columns, _numbered_csv_rows(path, lines))


def _numbered_csv_rows(path: Path, lines: _LineCounter) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV with the number of its first line."""
    reader = csv.reader(lines)
    while True:
        first_line = lines.count + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {first_line}: {error}") from error
        if row is None:
            return
        if lines.ended:
            raise ValueError(
                f"{path}, line {first_line}: a quoted cell does not end; close its quote"
            )
        if lines.last_line.strip():
            yield first_line, row


def _read_tsv(
    path: Path, text_file: io.TextIOBase, columns: Sequence[Sequence[str]]
) -> Iterator[Row]:
    """Yield the requested cells of a TSV."""
    lines = enumerate(_LineCounter(path, text_file), start=1)
    stripped = ((number, line.removesuffix("\n").rstrip("\r")) for number, line in lines)
    rows = ((number, line.split("\t")) for number, line in stripped if line)
    yield from _rows_under_header(path, columns, rows)


def _rows_under_header(
    path: Path, columns: Sequence[Sequence[str]], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[Row]:
    """Yield the requested cells of rows, of which the first one names the columns."""
    _, header = next(rows, (0, []))
    if not header:
        raise ValueError(f"{path} is empty")
    names = [find_column(choice, header, str(path)) for choice in columns]
    outer_columns = [outer_column(name, header) for name in names]
    indices = [header.index(column) for column in outer_columns]
    for number, row in rows:
        row_location = f"{path}, line {number}"
        if len(row) != len(header):
            raise ValueError(f"{row_location}, has {len(row)} columns, not {len(header)}")
        cells = zip(indices, names, outer_columns, strict=True)
        yield Row(
            row_location,
            [nested_cell(row[index], name, column, row_location) for index, name, column in cells],
        )


def _read_json(
    path: Path, text_file: io.TextIOBase, columns: Sequence[Sequence[str]]
) -> Iterator[Row]:
    """Yield the requested cells of JSON; only JSON with one row on each line is streamed."""
    all_keys: set[str] = set()
    num_rows = 0
    for row_location, row in _json_entries(path, text_file):
        num_rows += 1
        if isinstance(row, str) and len(columns) == 1 and TEXT in columns[0]:
            row = {columns[0][0]: row}
        if not isinstance(row, dict):
            raise ValueError(
                f"{row_location}: it holds {type_name(row)}, not an object with its columns"
            )
        all_keys |= row.keys()
        yield Row(row_location, [_json_cell(row, names, row_location) for names in columns])
    if not num_rows:
        raise ValueError(f"{path} has no rows")
    for names in columns:
        find_column(names, sorted(all_keys), str(path))


def _json_cell(row: Mapping[str, Any], names: Sequence[str], row_location: str) -> Any:
    """Return the cell of the first of the names that a row has; None without any of them."""
    for name in names:
        if (column := outer_column(name, [*row])) in row:
            return nested_cell(row[column], name, column, row_location)
    return None


def _json_entries(path: Path, text_file: io.TextIOBase) -> Iterator[tuple[str, Any]]:
    """Yield each entry of a JSON file with its place: one of each line, or of one document."""
    numbered = enumerate(iter(text_file.readline, ""), start=1)
    lines = ((number, line) for number, line in numbered if line.strip())
    number, line = next(lines, (0, ""))
    if not number:
        return
    # An array, or an object that goes over many lines, is the only document of its file.
    if line.lstrip()[0] == "[" or line.strip() == "{":
        document, second_line = _parse_json(path, number, line + text_file.read()), None
    else:
        document, second_line = _parse_json(path, number, line), next(lines, None)
    if second_line is None:
        entries = document if isinstance(document, list) else _rows_of_document(path, document)
        yield from ((f"{path}, row {row}", entry) for row, entry in enumerate(entries))
        return
    yield f"{path}, line {number}", document
    for number, line in chain([second_line], lines):
        yield f"{path}, line {number}", _parse_json(path, number, line)


def _parse_json(path: Path, number: int, text: str) -> Any:
    """Parse a JSON text that begins at line `number` of a file. Raises ValueError."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        fault_line = number + error.lineno - 1
        fault = f"{error.msg.removesuffix(' at')}, at column {error.colno}"
        raise ValueError(f"{path}, line {fault_line}: no JSON: {fault}") from error
    except (ValueError, RecursionError) as error:
        fault = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}, line {number}: no JSON: {fault}") from error


def _unique_keys_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises ValueError if it has a key several times."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated_key = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has {repeated_key!r} several times; leave one")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys_object)


def _rows_of_document(path: Path, document: Any) -> list[Any]:
    """Return the rows of an object whose values are all lists; any other document is one row."""
    if not isinstance(document, dict):
        return [document]
    columns = {name: values for name, values in document.items() if isinstance(values, list)}
    if len(columns) < len(document):
        return [document]
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values):,}" for name, values in columns.items())
        raise ValueError(f"{path} has columns of unlike lengths: {lengths}")
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _read_parquet(path: Path, columns: Sequence[Sequence[str]]) -> Iterator[Row]:
    """Yield the requested cells of a Parquet table."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    if path.suffix.lower() in files.PACKED:
        raise ValueError(f"path={path} is a packed Parquet table; unpack it")
    try:
        with ParquetFile(path) as table:
            table_columns = table.schema_arrow.names
            column_names = [find_column(names, table_columns, str(path)) for names in columns]
            outer_columns = [outer_column(name, table_columns) for name in column_names]
            row_number = 0
            for batch in table.iter_batches(BATCH, columns=list(dict.fromkeys(outer_columns))):
                cells = [batch.column(column).to_pylist() for column in outer_columns]
                for row in zip(*cells, strict=True):
                    row_location = f"{path}, row {row_number}"
                    cells_and_names = zip(row, column_names, outer_columns, strict=True)
                    yield Row(
                        row_location,
                        [
                            nested_cell(cell, name, column, row_location)
                            for cell, name, column in cells_and_names
                        ],
                    )
                    row_number += 1
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(f"path={path} cannot be read: {first_line}") from error
