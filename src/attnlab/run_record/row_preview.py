"""A few hundred rows of each run in one derived file: `.index/rows.jsonl`.

Curves of a thousand runs are drawn from it at once. Each line has, of each metric table of a run
that has ended, every k-th row and the last, as they were recorded (`run_record.index_file`). What
still trains is read from its record.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from attnlab.run_record.index_file import IndexEntry, IndexFile, Signature, file_signature
from attnlab.run_record.record import Record

FILE = "rows.jsonl"
MOST_ROWS = 512
"""The most rows of a table in a preview, beside the last one."""
NUM_ROWS = "num_rows"
"""The key of a preview's metadata that has the number of recorded rows."""
TABLES = ("train", "validation", "test")
"""The tables whose rows are previewed; the others are not thinned, and are read from the record."""


class _Entry(IndexEntry):
    signatures: dict[str, Signature]
    """Of the files that were read, by their paths from the directory of the runs."""
    tables: dict[str, bytes]
    """Each previewed table that has rows, as an Arrow stream."""
    other_tables: list[str]
    """The names of the other tables that have rows."""


class RowPreviews:
    """The previews of the runs in a directory, from their file where that is up to date."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._file = IndexFile(runs_dir, FILE, _Entry)
        self._growing_entries: dict[str, _Entry] = {}

    def open(self, record: Record, *, grows: bool = False) -> "PreviewedRecord":
        """Return the record of a run of this directory with the rows of its preview.

        That of a run that `grows` is read from the record where its files changed, and is kept in
        memory alone: it would be replaced with each row. Raises RecordError if a table of the
        record is damaged.
        """
        kept = self._growing_entries.get(record.name) if grows else self._file.get(record.name)
        entry = kept if kept is not None and self._is_current(kept) else None
        if entry is None:
            entry = _build_entry(record, self._runs_dir)
            if grows:
                self._growing_entries[record.name] = entry
            else:
                self._growing_entries.pop(record.name, None)
                self._file.add(entry)
        return PreviewedRecord(record.path, entry.tables, entry.other_tables)

    def save(self) -> None:
        """Append the previews that were made from records."""
        self._file.save()

    def _is_current(self, entry: _Entry) -> bool:
        return all(
            file_signature(self._runs_dir / path) == signature
            for path, signature in entry.signatures.items()
        )


class PreviewedRecord(Record):
    """A run's directory of whose metric tables only some rows are read."""

    def __init__(
        self, path: Path, tables: Mapping[str, bytes], other_tables: Sequence[str]
    ) -> None:
        super().__init__(path)
        self._streams, self._other_tables = tables, other_tables

    def rows(self, table: str) -> pa.Table:
        """Return every k-th row of a metric table and its last; other tables whole."""
        if table in self._streams:
            try:
                return pa.ipc.open_stream(self._streams[table]).read_all()
            except pa.ArrowException:
                return preview_rows(super().rows(table))
        if table in self._other_tables:
            return super().rows(table)
        return pa.table({"step": pa.array([], pa.int64())})


def preview_stride(num_rows: int) -> int:
    """Return the smallest power of two k for which every k-th of some rows are `MOST_ROWS`."""
    stride = 1
    while num_rows > stride * MOST_ROWS:
        stride *= 2
    return stride


def preview_rows(rows: pa.Table) -> pa.Table:
    """Return every k-th row and the last, for the k of `preview_stride`.

    So where two runs measured at the same steps, the longer one's rows are among the shorter's. The
    rows of a preview stay as they are.
    """
    stride = preview_stride(rows.num_rows)
    if stride == 1 or NUM_ROWS.encode() in (rows.schema.metadata or {}):
        return rows
    places = [*range(0, rows.num_rows - 1, stride), rows.num_rows - 1]
    return rows.take(places).replace_schema_metadata({NUM_ROWS: str(rows.num_rows)})


def num_recorded_rows(rows: pa.Table) -> int:
    """Return how many rows a run recorded of a table, of which a preview has some."""
    return int((rows.schema.metadata or {}).get(NUM_ROWS.encode(), rows.num_rows))


def _build_entry(record: Record, runs_dir: Path) -> _Entry:
    """Read a record and return its preview, with signatures from before it was read."""
    result_file, table_files = record.path / "run.json", record.table_files()
    paths = [result_file, *table_files]
    if not result_file.exists():
        # An attempt more, a table more or an end of the attempt changes its directory.
        paths += [record.path / "attempts", *(path.parent for path in table_files[-1:])]
    signatures = {
        str(path.relative_to(runs_dir)): signature
        for path in paths
        if (signature := file_signature(path)) is not None
    }
    tables, other_tables = {}, []
    for table in dict.fromkeys(path.stem for path in table_files):
        rows = record.rows(table)
        if not rows.num_rows:
            continue
        if table in TABLES:
            tables[table] = _encode(preview_rows(rows))
        else:
            other_tables.append(table)
    return _Entry(record.name, signatures, tables, other_tables)


def _encode(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        for batch in rows.combine_chunks().to_batches():
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
