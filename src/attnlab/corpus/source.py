"""Where a corpus lies: a text file, a column of a table, or a dataset on the hub."""

import hashlib
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
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
    """A file, byte for byte."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def sha256(self) -> str:
        at = self.path.stat()
        return _file_sha256(self.path, at.st_ino, at.st_size, at.st_mtime_ns)


class Rows(Source):
    """A column of tables, each row followed by a newline unless it is the only one of its table."""

    def __init__(self, tables: list[Any], column: str) -> None:
        self.tables, self.column = tables, column

    def pieces(self) -> Iterator[bytes]:
        for table in self.tables:
            end = "\n" if len(table) > 1 else ""
            for batch in table.select_columns(self.column).iter(batch_size=1000):
                yield "".join(f"{row or ''}{end}" for row in batch[self.column]).encode()


def find(path: str, column: str) -> Source:
    """Find a corpus by a file's path, or by `hub:NAME[:CONFIG][@REVISION]`.

    Of a table (.parquet, .csv, .json, .jsonl) and of the hub the `column` is read, all splits one
    after the other: train, validation, test, others. Raises ValueError where there is none such.
    """
    if path.startswith(HUB):
        return Rows(_from_hub(path.removeprefix(HUB), column), column)
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise ValueError(f"path={path} {what}; give a text file, or a table with its column")
    if not file.stat().st_size:
        raise ValueError(f"path={path} is empty")
    if builder := TABLES.get(file.suffix):
        return Rows(_tables(builder, column, path, data_files=str(file)), column)
    return File(file)


def _from_hub(name: str, column: str) -> list[Any]:
    parts = re.fullmatch(r"([^:@]+)(?::([^@]+))?(?:@(.+))?", name)
    if parts is None:
        raise ValueError(f"path=hub:{name} is no hub:NAME[:CONFIG][@REVISION]")
    where, config, revision = parts.groups()
    if not _reachable():
        # Without this word the library asks for 20 seconds before it gives up.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        if not _downloaded(where):
            raise ValueError(f"path=hub:{name} is not here, and {_endpoint()} does not answer")
    return _tables(where, column, f"hub:{name}", name=config, revision=revision)


def _tables(builder: str, column: str, path: str, **options: Any) -> list[Any]:
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(builder, **options)
    except Exception as error:  # The library raises whatever its readers and servers do.
        said = str(error).strip().split("\n")[0]
        raise ValueError(f"path={path} cannot be read: {type(error).__name__}: {said}") from error
    assert isinstance(found, datasets.DatasetDict)
    order = [s for s in ("train", "validation", "test") if s in found]
    tables = [found[str(name)] for name in dict.fromkeys([*order, *found])]
    for table in tables:
        if column not in table.column_names:
            there = ", ".join(table.column_names)
            raise ValueError(f"column={column!r} is not in {path}; there is {there}")
    return tables


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
