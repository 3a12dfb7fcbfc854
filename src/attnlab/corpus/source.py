"""Where a corpus lies: a text file, a column of a table, or a dataset on the hub."""

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
"""Rows that are converted at once."""
NAMES = {
    "train": {"train", "training"},
    "validation": {"valid", "validation", "val", "dev", "development"},
    "test": {"test"},
}
"""How files of a split are named; other parts of their names do not count."""
NEAR = 1 << 16
"""Bytes within which the end of a line is looked for where a text is cut."""


class Source(ABC):
    """A text as bytes, which can be read again and again."""

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Read the text from its beginning."""

    def sha256(self) -> str:
        """SHA-256 of the text."""
        sha = hashlib.sha256()
        for piece in self.pieces():
            sha.update(piece)
        return sha.hexdigest()


class File(Source):
    """A file of text, byte for byte but for a byte order mark; unpacked where its name says so."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pieces(self) -> Iterator[bytes]:
        yield from files.pieces(self.path)

    def sha256(self) -> str:
        at = self.path.stat()
        return _file_sha256(self.path, at.st_ino, at.st_size, at.st_mtime_ns)


class Counts(NamedTuple):
    """What a pass over rows has found."""

    sha256: str
    rows: int
    missing: int
    """Rows without a text, which are left out."""


class Rows(Source):
    """A column of tables, each row ending in a newline unless it is the only one of its table.

    Rows that have no text (null) are left out; an empty text is an empty line. What is no text is
    refused, with its row.
    """

    def __init__(
        self, path: str, column: str, read: Sequence[Callable[[], Iterator[tables.Row]]]
    ) -> None:
        self.path, self.column, self.read = path, column, read
        self._seen = self._missing = self._blank = 0
        self._counts: Counts | None = None

    def pieces(self) -> Iterator[bytes]:
        for read in self.read:
            texts = self._texts(read)
            first = [*islice(texts, 2)]
            if len(first) == 1:
                yield first[0].encode()
                continue
            there = chain(first, texts)
            while batch := [*islice(there, BATCH)]:
                yield "".join(r if r.endswith("\n") else f"{r}\n" for r in batch).encode()

    def sha256(self) -> str:
        return self.counts().sha256

    def counts(self) -> Counts:
        """Count the rows, once. Raises ValueError where none has a text."""
        if self._counts is not None:
            return self._counts
        self._seen = self._missing = self._blank = 0
        sha = super().sha256()
        if self._blank == self._seen:
            what = f"none of the {self._seen:,} rows has a text" if self._seen else "it has no rows"
            raise ValueError(
                f"path={self.path}: {what} in column={self.column!r}; there is nothing to learn"
            )
        self._counts = Counts(sha, self._seen, self._missing)
        return self._counts

    def _texts(self, read: Callable[[], Iterator[tables.Row]]) -> Iterator[str]:
        for place, (cell,) in read():
            self._seen += 1
            text = "" if cell is None else tables.text_of(cell, self.column, place)
            self._missing += cell is None
            self._blank += not text.strip()
            if cell is not None:
                yield text


class Table(Rows):
    """A column of a table in a file."""

    def __init__(self, file: Path, path: str, column: str) -> None:
        super().__init__(path, column, [partial(tables.rows, file, [[column]])])
        self.file = file

    def counts(self) -> Counts:
        at = self.file.stat()
        told = (at.st_ino, at.st_size, at.st_mtime_ns)
        return _table_counts(self.file, self.path, self.column, *told)


class Slice(Source):
    """A stretch of a text, in bytes."""

    def __init__(self, whole: Source, start: int, stop: int) -> None:
        self.whole, self.start, self.stop = whole, start, stop

    def pieces(self) -> Iterator[bytes]:
        at = 0
        for piece in self.whole.pieces():
            if part := piece[max(self.start - at, 0) : max(self.stop - at, 0)]:
                yield part
            at += len(piece)
            if at >= self.stop:
                return


def cut(whole: Source, shares: Mapping[str, float]) -> dict[str, Source]:
    """Part a text: first train, then a part for each share of its bytes, in their order.

    Each part but the last ends with a line; where none ends near, with a word, or a character.
    """
    size, left = sum(map(len, whole.pieces())), round(1 - sum(shares.values()), 12)
    bounds = [0]
    for share in (left, *shares.values()):
        bounds.append(min(size, bounds[-1] + int(size * share)))
    ends = [_after(whole, bound) for bound in bounds[1:-1]]
    ends = [0, *ends, size]
    names = ("train", *shares)
    return {name: Slice(whole, *ends[at : at + 2]) for at, name in enumerate(names)}


def _after(whole: Source, at: int) -> int:
    """Find the first place from `at` on where a text may be cut."""
    before, near = max(at - 1, 0), b"".join(Slice(whole, max(at - 1, 0), at + NEAR).pieces())
    for end in (b"\n", b" "):
        if (found := near.find(end)) >= 0:
            return before + found + 1
    rest = near[at - before :]
    return at + next((n for n, byte in enumerate(rest) if byte & 0xC0 != 0x80), len(rest))


def find(path: str, column: str) -> Source:
    """Find a corpus by a file's path, or by `hub:NAME[:CONFIG][@REVISION]`.

    Of a table (`tables.KINDS`) and of the hub the `column` is read, all splits one after the other:
    train, validation, test, others. Raises ValueError where there is none such.
    """
    if path.startswith(HUB):
        there = [partial(cells, path, table, [column]) for table in hub(path, [[column]]).values()]
        return Rows(path, column, there)
    return _found(given_path(path), path, column)


def splits(path: str, column: str) -> dict[str, Source]:
    """Find the splits that a corpus brings, by a directory or `hub:NAME[:CONFIG][@REVISION]`.

    A directory holds a text or table for each, with train, valid (validation, val, dev) or test in
    its name. Raises ValueError where there are none, or several files for one.
    """
    if path.startswith(HUB):
        there = hub(path, [[column]])
        return {
            name: Rows(path, column, [partial(cells, path, table, [column])])
            for name, table in there.items()
        }
    directory = given_path(path)
    if not directory.is_dir():
        what = "is one file" if directory.is_file() else "does not exist"
        raise ValueError(
            f"path={path} {what}; give a directory with files for train, validation and test, or "
            "dataset.validation and dataset.test as shares"
        )
    found: dict[str, list[Path]] = {name: [] for name in NAMES}
    for file in sorted(directory.iterdir()):
        words = set(re.split(r"[^a-z]+", file.name.lower()))
        for name, known in NAMES.items():
            if words & known and file.is_file():
                found[name].append(file)
    for name, named in found.items():
        if len(named) > 1:
            said = ", ".join(file.name for file in named)
            raise ValueError(f"path={path} has several files for {name}: {said}; leave one")
    return {
        name: _found(file, str(file), column)
        for name, (file, *_) in ((n, named) for n, named in found.items() if named)
    }


def hub(path: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Give the tables of `hub:NAME[:CONFIG][@REVISION]`: train, validation, test, others.

    Of each of `columns` they must have one of its names.
    """
    return _from_hub(path.removeprefix(HUB), columns)


def _found(file: Path, path: str, column: str) -> Source:
    if not file.is_file():
        what = "does not exist"
        if file.exists():
            what = "is a directory" if file.is_dir() else "is no plain file"
        raise ValueError(
            f"path={path} {what}; give a text file, or a table with its column. "
            "dataset.validation=null reads the splits of a directory"
        )
    if not file.stat().st_size:
        raise ValueError(f"path={path} is empty")
    if tables.kind(file.name):
        return Table(file, path, column)
    if not any(files.pieces(file)):
        raise ValueError(f"path={path} is empty")
    return File(file)


def cells(path: str, table: Any, columns: Sequence[str]) -> Iterator[tables.Row]:
    """Yield the cells of a table of the hub; NAME.KEY is an entry of a column of objects."""
    there, number = table.column_names, 0
    ways = [(name, "") if name in there else (*name.split(".", 1), "")[:2] for name in columns]
    heads = list(dict.fromkeys(head for head, _ in ways))
    for batch in table.select_columns(heads).iter(batch_size=BATCH):
        for at in range(len(batch[heads[0]])):
            place = f"path={path}, row {number}"
            yield tables.Row(
                place, [_entry(batch[head][at], head, key, place) for head, key in ways]
            )
            number += 1


def _entry(cell: Any, column: str, key: str, place: str) -> Any:
    if not key or cell is None:
        return cell
    if not isinstance(cell, Mapping):
        kind = tables.type_of(cell)
        raise ValueError(f"{place}: column={column!r} holds {kind}, not an object with {key!r}")
    return cell.get(key)


def _from_hub(name: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    parts = re.fullmatch(r"([^:@]+)(?::([^@]+))?(?:@(.+))?", name)
    if parts is None:
        raise ValueError(f"path=hub:{name} is no hub:NAME[:CONFIG][@REVISION]")
    where, config, revision = parts.groups()
    if not _reachable():
        # Without this word the library asks for 20 seconds before it gives up.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        if not _downloaded(where):
            raise ValueError(f"path=hub:{name} is not here, and {_endpoint()} does not answer")
    return _tables(where, columns, f"hub:{name}", name=config, revision=revision)


def _tables(
    builder: str, columns: Sequence[Sequence[str]], path: str, **options: Any
) -> dict[str, Any]:
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(builder, **options)
    except Exception as error:  # The library raises whatever its readers and servers do.
        # What it raises says that something failed; what failed is the cause, and that one's.
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        told = ": ".join(f"{type(e).__name__}: {str(e).strip().split(chr(10))[0]}" for e in causes)
        raise ValueError(f"path={path} cannot be read: {told}") from error
    assert isinstance(found, datasets.DatasetDict)
    order = [s for s in ("train", "validation", "test") if s in found]
    by_split = {str(name): found[str(name)] for name in dict.fromkeys([*order, *found])}
    for table in by_split.values():
        for names in columns:
            require_column(names, table.column_names, path)
    return by_split


def require_column(names: Sequence[str], there: Sequence[str], path: str) -> str:
    """Return the first of the names that a table has; NAME.KEY is an entry of its column NAME.

    Raises ValueError where it has none.
    """
    for name in names:
        if name not in there and name.partition(".")[0] in there:
            return name
    return tables.column_of(names, there, path)


def _endpoint() -> str:
    return variable("HF_ENDPOINT") or "https://huggingface.co"


def _reachable() -> bool:
    """Ask for a connection, to the proxy where there is one."""
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


def _downloaded(name: str) -> bool:
    """Whether the library has kept an earlier download; asked without importing it."""
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
    return Rows.counts(Table(file, path, column))
