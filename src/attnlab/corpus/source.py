"""Where a corpus lies: a text file, a column of a table, or a dataset on the hub."""

import gzip
import hashlib
import os
import re
import socket
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PIECE = 1 << 22
"""Bytes that are read at once."""
TABLES = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
HUB = "hub:"
PROBE_SECONDS = 1.0
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
    """A file, byte for byte; what it holds, where its name ends in .gz."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pieces(self) -> Iterator[bytes]:
        yield from _read(self.path)

    def sha256(self) -> str:
        at = self.path.stat()
        return _file_sha256(self.path, at.st_ino, at.st_size, at.st_mtime_ns)


class Rows(Source):
    """A column of tables, each row ending in a newline unless it is the only one of its table."""

    def __init__(self, tables: list[Any], column: str) -> None:
        self.tables, self.column = tables, column

    def pieces(self) -> Iterator[bytes]:
        for table in self.tables:
            end = "\n" if len(table) > 1 else ""
            for batch in table.select_columns(self.column).iter(batch_size=1000):
                rows = (row or "" for row in batch[self.column])
                yield "".join(
                    row if end and row.endswith(end) else row + end for row in rows
                ).encode()


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

    Of a table (.parquet, .csv, .json, .jsonl) and of the hub the `column` is read, all splits one
    after the other: train, validation, test, others. Raises ValueError where there is none such.
    """
    if path.startswith(HUB):
        return Rows([*hub(path, [[column]]).values()], column)
    return _found(Path(path).expanduser(), path, column)


def splits(path: str, column: str) -> dict[str, Source]:
    """Find the splits that a corpus brings, by a directory or `hub:NAME[:CONFIG][@REVISION]`.

    A directory holds a text or table for each, with train, valid (validation, val, dev) or test in
    its name. Raises ValueError where there are none, or several files for one.
    """
    if path.startswith(HUB):
        tables = hub(path, [[column]])
        return {name: Rows([table], column) for name, table in tables.items()}
    directory = Path(path).expanduser()
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
    for name, files in found.items():
        if len(files) > 1:
            said = ", ".join(file.name for file in files)
            raise ValueError(f"path={path} has several files for {name}: {said}; leave one")
    return {
        name: _found(file, str(file), column)
        for name, (file, *_) in ((n, files) for n, files in found.items() if files)
    }


def hub(path: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Give the tables of `hub:NAME[:CONFIG][@REVISION]`: train, validation, test, others.

    Of each of `columns` they must have one of its names.
    """
    return _from_hub(path.removeprefix(HUB), columns)


def _found(file: Path, path: str, column: str) -> Source:
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise ValueError(
            f"path={path} {what}; give a text file, or a table with its column. "
            "dataset.validation=null reads the splits of a directory"
        )
    if not file.stat().st_size:
        raise ValueError(f"path={path} is empty")
    if builder := TABLES.get(file.suffix):
        tables = _tables(builder, [[column]], path, data_files=str(file))
        return Rows([*tables.values()], column)
    return File(file)


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
        said = str(error).strip().split("\n")[0]
        raise ValueError(f"path={path} cannot be read: {type(error).__name__}: {said}") from error
    assert isinstance(found, datasets.DatasetDict)
    order = [s for s in ("train", "validation", "test") if s in found]
    tables = {str(name): found[str(name)] for name in dict.fromkeys([*order, *found])}
    for table in tables.values():
        for names in columns:
            require_column(names, table.column_names, path)
    return tables


def require_column(names: Sequence[str], there: Sequence[str], path: str) -> str:
    """Give the first of the names that a table has. Raises ValueError where it has none."""
    for name in names:
        if name in there:
            return name
    said = " or ".join(map(repr, names))
    raise ValueError(f"column={said} is not in {path}; there is {', '.join(there)}")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _reachable() -> bool:
    """Ask for a connection, to the proxy where there is one."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
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
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets"))
    return (cache / name.replace("/", "___").lower()).is_dir()


@lru_cache
def _file_sha256(path: Path, inode: int, size: int, modified: int) -> str:
    sha = hashlib.sha256()
    for piece in _read(path):
        sha.update(piece)
    return sha.hexdigest()


def _read(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"path={path} cannot be unpacked: {error}") from error
