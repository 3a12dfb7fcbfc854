"""Sources of a corpus: a text file, a column of a table, or a dataset on the hub."""

import hashlib
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from attnlab.corpus import files, tables
from attnlab.environment import given_path, variable

HUB = "hub:"
PROBE_SECONDS = 1.0
BATCH = 1000
"""The number of rows that are converted at once."""
NAMES = {
    "train": {"train", "training"},
    "validation": {"valid", "validation", "val", "dev", "development"},
    "test": {"test"},
}
"""The words in a file's name that mark its split; other words of the name do not count."""
NEAR = 1 << 16
"""The number of bytes within which a cut looks for the end of a line."""


class Source(ABC):
    """A text as bytes, which can be read repeatedly."""

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Yield the text from its beginning."""

    def sha256(self) -> str:
        """Return the SHA-256 of the text."""
        sha = hashlib.sha256()
        for piece in self.pieces():
            sha.update(piece)
        return sha.hexdigest()


class File(Source):
    """The bytes of a text file without a byte order mark; unpacked if its name says so."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pieces(self) -> Iterator[bytes]:
        yield from files.pieces(self.path)

    def sha256(self) -> str:
        status = self.path.stat()
        return _file_sha256(self.path, status.st_ino, status.st_size, status.st_mtime_ns)


class Counts(NamedTuple):
    """The result of a pass over all rows: their hash, and how many there are."""

    sha256: str
    rows: int
    missing: int
    """Rows without a text, which are left out."""


class RowSource(Source):
    """A column of tables, each row ending in a newline unless it is the only one of its table.

    Rows without a text (null) are left out; an empty text is an empty line. A cell that is no text
    raises ValueError, which names its row.
    """

    def __init__(
        self, path: str, column: str, read: Sequence[Callable[[], Iterator[tables.Row]]]
    ) -> None:
        self.path, self.column, self.read = path, column, read
        self._num_rows = self._num_missing = self._num_blank = 0
        self._counts: Counts | None = None

    def pieces(self) -> Iterator[bytes]:
        for read in self.read:
            texts = self._read_texts(read)
            first_two = [*islice(texts, 2)]
            if len(first_two) == 1:
                yield first_two[0].encode()
                continue
            all_texts = chain(first_two, texts)
            while batch := [*islice(all_texts, BATCH)]:
                yield "".join(t if t.endswith("\n") else f"{t}\n" for t in batch).encode()

    def sha256(self) -> str:
        return self.counts().sha256

    def counts(self) -> Counts:
        """Count the rows, at the first call alone. Raises ValueError if none has a text."""
        if self._counts is not None:
            return self._counts
        self._num_rows = self._num_missing = self._num_blank = 0
        sha = super().sha256()
        if self._num_blank == self._num_rows:
            fault = (
                f"none of the {self._num_rows:,} rows has a text"
                if self._num_rows
                else "it has no rows"
            )
            raise ValueError(
                f"path={self.path}: {fault} in column={self.column!r}; there is nothing to learn"
            )
        self._counts = Counts(sha, self._num_rows, self._num_missing)
        return self._counts

    def _read_texts(self, read: Callable[[], Iterator[tables.Row]]) -> Iterator[str]:
        """Yield the texts of one table, and count its rows, missing cells and blank texts."""
        for place, (cell,) in read():
            self._num_rows += 1
            text = "" if cell is None else tables.text_of(cell, self.column, place)
            self._num_missing += cell is None
            self._num_blank += not text.strip()
            if cell is not None:
                yield text


class TableSource(RowSource):
    """A column of a table in a file."""

    def __init__(self, file: Path, path: str, column: str) -> None:
        super().__init__(path, column, [partial(tables.rows, file, [[column]])])
        self.file = file

    def counts(self) -> Counts:
        status = self.file.stat()
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        return _table_counts(self.file, self.path, self.column, *version)


class Slice(Source):
    """The bytes `start` to `stop` - 1 of a text."""

    def __init__(self, text: Source, start: int, stop: int) -> None:
        self.whole, self.start, self.stop = text, start, stop

    def pieces(self) -> Iterator[bytes]:
        offset = 0
        for piece in self.whole.pieces():
            if overlap := piece[max(self.start - offset, 0) : max(self.stop - offset, 0)]:
                yield overlap
            offset += len(piece)
            if offset >= self.stop:
                return


def split_text_by_shares(text: Source, shares: Mapping[str, float]) -> dict[str, Source]:
    """Split a text into train, then a part for each share of its bytes, in their order.

    Each part but the last ends at the end of a line; if none is near, at that of a word, or else of
    a character.
    """
    size, train_share = sum(map(len, text.pieces())), round(1 - sum(shares.values()), 12)
    bounds = [0]
    for share in (train_share, *shares.values()):
        bounds.append(min(size, bounds[-1] + int(size * share)))
    cuts = [0, *(_find_cut(text, bound) for bound in bounds[1:-1]), size]
    names = ("train", *shares)
    return {name: Slice(text, *cuts[part : part + 2]) for part, name in enumerate(names)}


def _find_cut(text: Source, bound: int) -> int:
    """Return the first offset, from `bound` on, at which a text may be cut."""
    # The byte before the bound is read too: if it ends a line, the bound itself is such an offset.
    start = max(bound - 1, 0)
    nearby = b"".join(Slice(text, start, bound + NEAR).pieces())
    for separator in (b"\n", b" "):
        if (index := nearby.find(separator)) >= 0:
            return start + index + 1
    rest = nearby[bound - start :]
    # A byte 0b10xxxxxx continues a character of UTF-8.
    return bound + next((n for n, byte in enumerate(rest) if byte & 0xC0 != 0x80), len(rest))


def find_source(path: str, column: str) -> Source:
    """Return the source of a corpus at a file's path, or at `hub:NAME[:CONFIG][@REVISION]`.

    From a table (`tables.KINDS`) or the hub, the `column` is read, all splits one after the other:
    train, validation, test, others. Raises ValueError if there is no such corpus.
    """
    if path.startswith(HUB):
        readers = [
            partial(cells, path, table, [column])
            for table in load_hub_tables(path, [[column]]).values()
        ]
        return RowSource(path, column, readers)
    return _file_source(given_path(path), path, column)


def find_split_sources(path: str, column: str) -> dict[str, Source]:
    """Return the corpus's own splits, from a directory or `hub:NAME[:CONFIG][@REVISION]`.

    A directory holds a text or table for each, with train, valid (validation, val, dev) or test in
    its name. Raises ValueError if `path` is no directory, or holds several files for one split.
    """
    if path.startswith(HUB):
        return {
            split: RowSource(path, column, [partial(cells, path, table, [column])])
            for split, table in load_hub_tables(path, [[column]]).items()
        }
    directory = given_path(path)
    if not directory.is_dir():
        fault = "is one file" if directory.is_file() else "does not exist"
        raise ValueError(
            f"path={path} {fault}; give a directory with files for train, validation and test, or "
            "dataset.validation and dataset.test as shares"
        )
    files_by_split: dict[str, list[Path]] = {split: [] for split in NAMES}
    for file in sorted(directory.iterdir()):
        words = set(re.split(r"[^a-z]+", file.name.lower()))
        for split, split_words in NAMES.items():
            if words & split_words and file.is_file():
                files_by_split[split].append(file)
    for split, split_files in files_by_split.items():
        if len(split_files) > 1:
            file_names = ", ".join(file.name for file in split_files)
            raise ValueError(f"path={path} has several files for {split}: {file_names}; leave one")
    return {
        split: _file_source(split_files[0], str(split_files[0]), column)
        for split, split_files in files_by_split.items()
        if split_files
    }


def load_hub_tables(path: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Load the tables of `hub:NAME[:CONFIG][@REVISION]`, by split: train, validation, test, others.

    Each entry of `columns` lists names for one column, of which a table must have one.
    """
    return _load_from_hub(path.removeprefix(HUB), columns)


def _file_source(file: Path, path: str, column: str) -> Source:
    """Return the source of a text file or table. Raises ValueError if it is missing or empty."""
    if not file.is_file():
        fault = "does not exist"
        if file.exists():
            fault = "is a directory" if file.is_dir() else "is no plain file"
        raise ValueError(
            f"path={path} {fault}; give a text file, or a table with its column. "
            "dataset.validation=null reads the splits of a directory"
        )
    if not file.stat().st_size:
        raise ValueError(f"path={path} is empty")
    if tables.kind(file.name):
        return TableSource(file, path, column)
    if not any(files.pieces(file)):
        raise ValueError(f"path={path} is empty")
    return File(file)


def cells(path: str, table: Any, columns: Sequence[str]) -> Iterator[tables.Row]:
    """Yield the cells of a table of the hub; NAME.KEY is an entry of a column of objects."""
    column_keys = [
        (name, "") if name in table.column_names else (*name.split(".", 1), "")[:2]
        for name in columns
    ]
    table_columns = list(dict.fromkeys(column for column, _ in column_keys))
    row_number = 0
    for batch in table.select_columns(table_columns).iter(batch_size=BATCH):
        for index in range(len(batch[table_columns[0]])):
            place = f"path={path}, row {row_number}"
            yield tables.Row(
                place,
                [
                    _entry_of_cell(batch[column][index], column, key, place)
                    for column, key in column_keys
                ],
            )
            row_number += 1


def _entry_of_cell(cell: Any, column: str, key: str, place: str) -> Any:
    """Return the entry `key` of a cell that is an object; the cell itself without a key."""
    if not key or cell is None:
        return cell
    if not isinstance(cell, Mapping):
        kind = tables.type_of(cell)
        raise ValueError(f"{place}: column={column!r} holds {kind}, not an object with {key!r}")
    return cell.get(key)


def _load_from_hub(name: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    match = re.fullmatch(r"([^:@]+)(?::([^@]+))?(?:@(.+))?", name)
    if match is None:
        raise ValueError(f"path=hub:{name} is no hub:NAME[:CONFIG][@REVISION]")
    repository, config, revision = match.groups()
    if not _hub_answers():
        # Without these variables the library retries for 20 seconds before it gives up.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        if not _is_downloaded(repository):
            raise ValueError(f"path=hub:{name} is not here, and {_endpoint()} does not answer")
    return _load_tables(repository, columns, f"hub:{name}", name=config, revision=revision)


def _load_tables(
    builder: str, columns: Sequence[Sequence[str]], path: str, **options: Any
) -> dict[str, Any]:
    """Load the tables of a hub dataset by split, and check that each has all columns."""
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(builder, **options)
    except Exception as error:  # The library raises any exception of its readers and servers.
        # The exception says only that loading failed; its chain of causes says what failed.
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        chain_text = ": ".join(
            f"{type(e).__name__}: {str(e).strip().split(chr(10))[0]}" for e in causes
        )
        raise ValueError(f"path={path} cannot be read: {chain_text}") from error
    assert isinstance(dataset, datasets.DatasetDict)
    known_splits = [split for split in ("train", "validation", "test") if split in dataset]
    by_split = {str(name): dataset[str(name)] for name in dict.fromkeys([*known_splits, *dataset])}
    for table in by_split.values():
        for names in columns:
            require_column(names, table.column_names, path)
    return by_split


def require_column(names: Sequence[str], table_columns: Sequence[str], path: str) -> str:
    """Return the first of the names that a table has; NAME.KEY is an entry of its column NAME.

    Raises ValueError if it has none of them.
    """
    for name in names:
        if name not in table_columns and name.partition(".")[0] in table_columns:
            return name
    return tables.column_of(names, table_columns, path)


def _endpoint() -> str:
    return variable("HF_ENDPOINT") or "https://huggingface.co"


def _hub_answers() -> bool:
    """Return whether the hub, or the proxy before it, accepts a connection."""
    if (variable("HF_HUB_OFFLINE") or "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    server = urlsplit(_endpoint())
    proxy = getproxies().get(server.scheme)
    if proxy and not proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = server.port or (80 if server.scheme == "http" else 443)
    try:
        with socket.create_connection((server.hostname or "", port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def _is_downloaded(name: str) -> bool:
    """Return whether the library's cache has an earlier download, without importing the library."""
    home = given_path(variable("HF_HOME") or "~/.cache/huggingface")
    cache = given_path(variable("HF_DATASETS_CACHE") or home / "datasets")
    return (cache / name.replace("/", "___").lower()).is_dir()


@lru_cache
def _file_sha256(path: Path, inode: int, size: int, modified: int) -> str:
    return Source.sha256(File(path))


@lru_cache
def _table_counts(
    file: Path, path: str, column: str, inode: int, size: int, modified: int
) -> Counts:
    return RowSource.counts(TableSource(file, path, column))
