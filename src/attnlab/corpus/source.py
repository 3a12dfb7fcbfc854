"""Sources of a corpus: text files, a column of a table, a saved dataset, or one on the hub."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from glob import has_magic
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from attnlab.corpus import files, hub, tables
from attnlab.environment import expand_home

COLUMN = "text"
"""The column of a table that is read where none is stated."""
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

    has_tables: bool = False
    """Whether tables are among what is read."""

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Yield the text from its beginning."""

    def documents(self) -> Iterator[bytes]:
        """Yield each document of the text: a row of a table, or a whole file."""
        yield b"".join(self.pieces())

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
        yield from files.read_pieces(self.path)

    def sha256(self) -> str:
        status = self.path.stat()
        return _file_sha256(self.path, status.st_ino, status.st_size, status.st_mtime_ns)


class Counts(NamedTuple):
    """The result of a pass over all rows: their hash, and how many there are."""

    sha256: str
    rows: int
    """Rows of tables, or files of texts."""
    missing: int
    """Rows without a text, and empty files, which are left out."""


class RowSource(Source):
    """A column of tables, each row ending in a newline unless it is the only one of its table.

    Rows without a text (null) are left out; an empty text is an empty line. A cell that is no text
    raises ValueError, which names its row.
    """

    has_tables = True
    unit = "rows"
    """What its counts are of."""

    def __init__(
        self, path: str, column: str, table_readers: Sequence[Callable[[], Iterator[tables.Row]]]
    ) -> None:
        self.path, self.column, self.table_readers = path, column, table_readers
        self._num_rows = self._num_missing = self._num_blank = 0
        self._counts: Counts | None = None

    def pieces(self) -> Iterator[bytes]:
        for read_table in self.table_readers:
            texts = self._read_texts(read_table)
            first_two = [*islice(texts, 2)]
            if len(first_two) == 1:
                yield first_two[0].encode()
                continue
            all_texts = chain(first_two, texts)
            while batch := [*islice(all_texts, BATCH)]:
                lines = (text if text.endswith("\n") else f"{text}\n" for text in batch)
                yield "".join(lines).encode()

    def documents(self) -> Iterator[bytes]:
        for read_table in self.table_readers:
            yield from (text.encode() for text in self._read_texts(read_table))

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

    def _read_texts(self, read_table: Callable[[], Iterator[tables.Row]]) -> Iterator[str]:
        """Yield the texts of one table, and count its rows, missing cells and blank texts."""
        for row_location, (cell,) in read_table():
            self._num_rows += 1
            text = "" if cell is None else tables.require_text(cell, self.column, row_location)
            self._num_missing += cell is None
            self._num_blank += not text.strip()
            if cell is not None:
                yield text


class TableSource(RowSource):
    """A column of a table in a file."""

    def __init__(self, file: Path, path: str, column: str) -> None:
        super().__init__(path, column, [partial(tables.read_rows, file, [[column]])])
        self.file = file

    def counts(self) -> Counts:
        status = self.file.stat()
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        return _table_counts(self.file, self.path, self.column, *version)


class Folder(Source):
    """Many files one after the other; each text ends in a newline. Tables give their rows.

    Empty files are left out.
    """

    unit = "files"

    def __init__(self, paths: Sequence[Path], path: str, column: str) -> None:
        self.paths, self.path, self.column = tuple(paths), path, column
        self.sources: list[Source] = [
            TableSource(file, str(file), column) if tables.kind(file.name) else File(file)
            for file in paths
            if file.stat().st_size
        ]
        self.has_tables = any(source.has_tables for source in self.sources)
        if self.has_tables:
            self.unit = "rows and files"

    def pieces(self) -> Iterator[bytes]:
        for source in self.sources:
            last_byte = b"\n"
            for piece in source.pieces():
                if piece:
                    yield piece
                    last_byte = piece[-1:]
            if last_byte != b"\n":
                yield b"\n"

    def documents(self) -> Iterator[bytes]:
        yield from chain.from_iterable(source.documents() for source in self.sources)

    def sha256(self) -> str:
        return self.counts().sha256

    def counts(self) -> Counts:
        """Count rows and files. Raises ValueError if none has a text."""
        stats = [file.stat() for file in self.paths]
        versions = tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
        return _folder_counts(self.paths, self.path, self.column, versions)

    def unreadable_file(self) -> Path | None:
        """Return the first file that is binary or not UTF-8; None if all are text."""
        for source in self.sources:
            if isinstance(source, File):
                content = b"".join(source.pieces())
                try:
                    content.decode()
                except UnicodeDecodeError:
                    return source.path
                if b"\0" in content:
                    return source.path
        return None


JoinedSource = RowSource | Folder
"""The sources that join several documents to one text."""


class Slice(Source):
    """The bytes `start` to `stop` - 1 of a text."""

    def __init__(self, text: Source, start: int, stop: int) -> None:
        self.text, self.start, self.stop = text, start, stop

    def pieces(self) -> Iterator[bytes]:
        offset = 0
        for piece in self.text.pieces():
            if overlap := piece[max(self.start - offset, 0) : max(self.stop - offset, 0)]:
                yield overlap
            offset += len(piece)
            if offset >= self.stop:
                return


def name_unreadable_file(error: ValueError, sources: Iterable[Source]) -> ValueError:
    """Return the fault of a text with the file at fault, if the text is of many files."""
    texts = [source.text if isinstance(source, Slice) else source for source in sources]
    for folder in [text for text in texts if isinstance(text, Folder)]:
        file = folder.unreadable_file()
        if file is not None:
            return ValueError(
                f"{file} is binary or not UTF-8; convert it or move it away, or take "
                "dataset/tokenizer=bytes"
            )
    return error


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
    split_names = ("train", *shares)
    return {name: Slice(text, *cuts[index : index + 2]) for index, name in enumerate(split_names)}


def _find_cut(text: Source, bound: int) -> int:
    """Return the first offset, from `bound` on, at which a text may be cut."""
    # The byte before the bound is read too: if it ends a line, the bound itself is such an offset.
    start = max(bound - 1, 0)
    nearby = b"".join(Slice(text, start, bound + NEAR).pieces())
    for separator in (b"\n", b" "):
        if (index := nearby.find(separator)) >= 0:
            return start + index + 1
    rest_of_text = nearby[bound - start :]
    # A byte 0b10xxxxxx continues a character of UTF-8.
    return bound + next(
        (n for n, byte in enumerate(rest_of_text) if byte & 0xC0 != 0x80), len(rest_of_text)
    )


def find_source(path: str, column: str) -> Source:
    """Return the source of a corpus at a path, or at `hub:NAME[:CONFIG][@REVISION]`.

    A path is that of a text file, of a table (`tables.KINDS`), of a directory of such files (in the
    order of their relative paths; hidden ones are left out), of a directory of `save_to_disk`, or
    a pattern of files with `*`, `?` and `[...]`. Of tables, the `column` is read; of the hub, all
    splits one after the other: train, validation, test, others. Raises ValueError if there is no
    such corpus.
    """
    if path.startswith(hub.HUB):
        readers = [
            partial(hub.read_rows, path, table, [column])
            for table in hub.load_hub_tables(path, [[column]]).values()
        ]
        return RowSource(path, column, readers)
    location = expand_home(path)
    if location.is_dir() or (has_magic(path) and not location.exists()):
        return _many_files_source(location, path, column)
    return _file_source(location, path, column)


def find_sources(path: str, column: str, shares: Mapping[str, float | None]) -> dict[str, Source]:
    """Return the source of train, and of each split that has no share (null).

    Raises ValueError if there is none, and for a column that was stated although no table is read.
    """
    own_splits = [name for name, share in shares.items() if share is None]
    if own_splits:
        sources = find_split_sources(path, column)
        for name in ("train", *own_splits):
            if name not in sources:
                raise ValueError(
                    f"path={path} has no split named {name}; there is "
                    f"{', '.join(sources) or 'none'}"
                    + (f"; give dataset.{name} as a share" if name != "train" else "")
                )
        sources = {name: sources[name] for name in ("train", *own_splits)}
    else:
        sources = {"train": find_source(path, column)}
    if column != COLUMN and not any(part.has_tables for part in sources.values()):
        raise ValueError(
            f"column={column!r} is for tables, and path={path} holds plain text; leave it out, "
            f"or name a table (.csv, .tsv, .jsonl, .parquet)"
        )
    return sources


def find_split_sources(path: str, column: str) -> dict[str, Source]:
    """Return the corpus's own splits, from a directory or `hub:NAME[:CONFIG][@REVISION]`.

    A directory holds a text, table or directory of texts for each, with train, valid (validation,
    val, dev) or test in its name; or `save_to_disk` wrote it. Raises ValueError if `path` is no
    directory, or holds several files for one split.
    """
    directory = None if path.startswith(hub.HUB) else expand_home(path)
    if directory is None or hub.is_saved_dataset(directory):
        split_tables = (
            hub.load_hub_tables(path, [[column]])
            if directory is None
            else hub.load_saved_tables(directory, path, [[column]])
        )
        return {
            "train" if split == hub.ONLY else split: RowSource(
                path, column, [partial(hub.read_rows, path, table, [column])]
            )
            for split, table in split_tables.items()
        }
    if not directory.is_dir():
        fault = "is one file" if directory.is_file() else "does not exist"
        raise ValueError(
            f"path={path} {fault}; give a directory with files for train, validation and test, or "
            "dataset.validation and dataset.test as shares"
        )
    split_paths = paths_by_split(directory)
    for split, split_files in split_paths.items():
        if len(split_files) > 1:
            file_names = ", ".join(file.name for file in split_files)
            raise ValueError(f"path={path} has several files for {split}: {file_names}; leave one")
    return {
        split: _many_files_source(path_of_split, str(path_of_split), column)
        if path_of_split.is_dir()
        else _file_source(path_of_split, str(path_of_split), column)
        for split, (path_of_split,) in split_paths.items()
    }


def paths_by_split(directory: Path) -> dict[str, list[Path]]:
    """Return the files and directories whose names mark a split, by split; none is left out."""
    paths: dict[str, list[Path]] = {split: [] for split in NAMES}
    for path in sorted(directory.iterdir()):
        name_words = set(re.split(r"[^a-z]+", path.name.lower()))
        for split, split_words in NAMES.items():
            if name_words & split_words and not path.name.startswith("."):
                paths[split].append(path)
    return {split: split_places for split, split_places in paths.items() if split_places}


def visible_files_below(directory: Path) -> list[Path]:
    """Return all files below a directory, by relative path; hidden ones are left out."""
    path_by_name = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*")
        if path.is_file()
    }
    visible_names = [
        name
        for name in path_by_name
        if not any(component.startswith(".") for component in name.split("/"))
    ]
    return [path_by_name[name] for name in sorted(visible_names)]


def _many_files_source(location: Path, path: str, column: str) -> Source:
    """Return the source of a directory, or of a pattern of files. Raises ValueError."""
    if location.is_dir():
        if hub.is_saved_dataset(location):
            return _saved_source(location, path, column)
        split_paths = paths_by_split(location)
        if len(split_paths) > 1:
            names = ", ".join(split_files[0].name for split_files in split_paths.values())
            raise ValueError(
                f"path={path} has splits of its own ({names}); dataset.validation=null and "
                "dataset.test=null read them, or name the files that are one text"
            )
        paths, fault = visible_files_below(location), "has no file"
    else:
        pattern = str(location.relative_to(location.anchor))
        matches = sorted(Path(location.anchor).glob(pattern))
        paths = [file for file in matches if file.is_file() and not file.name.startswith(".")]
        fault = "matches no file"
    if not paths:
        raise ValueError(f"path={path} {fault}; give text files, or tables with their column")
    folder = Folder(paths, path, column)
    if not folder.sources:
        raise ValueError(f"path={path}: all of {len(paths):,} files are empty")
    return folder


def _saved_source(directory: Path, path: str, column: str) -> Source:
    """Return the only table of a directory of `save_to_disk`. Raises ValueError if it has more."""
    split_tables = hub.load_saved_tables(directory, path, [[column]])
    if len(split_tables) > 1:
        raise ValueError(
            f"path={path} has splits of its own ({', '.join(split_tables)}); "
            "dataset.validation=null reads them, and so does dataset.test=null"
        )
    readers = [partial(hub.read_rows, path, table, [column]) for table in split_tables.values()]
    return RowSource(path, column, readers)


def _file_source(file: Path, path: str, column: str) -> Source:
    """Return the source of a text file or table. Raises ValueError if it is missing or empty."""
    if not file.is_file():
        fault = "is no plain file" if file.exists() else "does not exist"
        raise ValueError(
            f"path={path} {fault}; give a text file, a table with its column, or a directory of "
            "such files"
        )
    if not file.stat().st_size:
        raise ValueError(f"path={path} is empty")
    if tables.kind(file.name):
        return TableSource(file, path, column)
    if not any(files.read_pieces(file)):
        raise ValueError(f"path={path} is empty")
    return File(file)


@lru_cache
def _file_sha256(path: Path, inode: int, size: int, modified: int) -> str:
    return Source.sha256(File(path))


@lru_cache
def _table_counts(
    file: Path, path: str, column: str, inode: int, size: int, modified: int
) -> Counts:
    return RowSource.counts(TableSource(file, path, column))


@lru_cache
def _folder_counts(
    paths: tuple[Path, ...], path: str, column: str, versions: tuple[tuple[int, ...], ...]
) -> Counts:
    """Count the rows and files of a folder; `versions` make the cache forget changed files."""
    folder = Folder(paths, path, column)
    table_counts = [source.counts() for source in folder.sources if isinstance(source, RowSource)]
    num_files = len(paths) - len(table_counts)
    num_empty = len(paths) - len(folder.sources)
    if not table_counts and not any(piece.strip() for piece in folder.pieces()):
        raise ValueError(f"path={path}: none of the {len(paths):,} files has a text")
    return Counts(
        Source.sha256(folder),
        num_files + sum(counts.rows for counts in table_counts),
        num_empty + sum(counts.missing for counts in table_counts),
    )
