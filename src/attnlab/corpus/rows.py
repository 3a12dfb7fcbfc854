"""Small published datasets: rows of texts, read from files or from the hub."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attnlab.corpus import files as text_files
from attnlab.corpus import hub, source, store, tables
from attnlab.environment import expand_home
from attnlab.ranges import Share

Row = list[str]
T = TypeVar("T")
Files = Mapping[str, str | Share | None]
"""The file of each split, inside the directory; a number is a share of the training rows, and null
leaves a split out."""
HELD_SHARE = 0.1
"""The share of each held-back split where data without splits are read and none is stated."""

SHOWN = 8
"""The number of a directory's files in a message."""
PAD, UNKNOWN = "<pad>", "<unk>"


@dataclass(frozen=True)
class Reader:
    """How a dataset reads its rows."""

    read: Callable[[Path, str], list[Row]]
    """Reads the file or directory of a name in a directory."""
    columns: Sequence[Sequence[str]] = ()
    """The names of each column in tables of the hub or of `save_to_disk`."""
    number_columns: Sequence[int] = ()
    """The indices of columns that may hold numbers; the others hold texts."""
    column_knobs: Sequence[str] = ()
    """The knob that names each column, for messages."""
    default_files: Files | None = None
    """The files where none are stated; then data without splits are read too, under `hub.ONLY`."""
    reads_folders: bool = False
    """Whether a directory without files of splits is read as a whole."""


def load(
    path: str | None, files: Files, sha256: str | None, obtain: str | None, reader: Reader
) -> tuple[str, dict[str, list[Row]]]:
    """Load the rows of all splits that have files; return their SHA-256 and the rows.

    From `hub:NAME` and from a directory of `save_to_disk`, columns are read instead, from the
    splits that have the names in `files`. A missing text is read as an empty one. Data without
    splits are all under `hub.ONLY`. The SHA-256 is over the rows, one line of JSON for each split,
    so it does not depend on the path. With a `sha256`, other rows are refused, and rows that are in
    the cache need no path.
    """
    require_files(files)
    instruction = f"; obtain {obtain}, and give dataset.path=DIRECTORY" if obtain else ""
    if path is None:
        cached_rows = store.load_rows(sha256) if sha256 else None
        if cached_rows is None:
            fault = (
                f"the rows with sha256={sha256} are not kept here" if sha256 else "it needs data"
            )
            places = "FILE or DIRECTORY" if reader.default_files else "DIRECTORY"
            raise ValueError(f"{fault}{instruction or f'; give dataset.path={places}'}")
        return sha256 or "", cached_rows
    try:
        rows_by_split = dict(_read_splits(path, files, reader))
    except tables.MissingColumn as error:
        knob_by_column = dict(zip(map(tuple, reader.columns), reader.column_knobs, strict=False))
        knob = knob_by_column.get(tuple(error.names))
        hint = f"; give dataset.{knob}=COLUMN" if knob else ""
        raise ValueError(f"{error}{hint}{instruction}") from error
    except ValueError as error:
        raise ValueError(f"{error}{instruction}") from error
    sha = hashlib.sha256()
    for split in sorted(rows_by_split):
        sha.update(json.dumps([split, rows_by_split[split]], ensure_ascii=False).encode() + b"\n")
    rows_sha256 = sha.hexdigest()
    if sha256 not in (None, rows_sha256):
        raise ValueError(
            f"path={path} has sha256 {rows_sha256}, expected {sha256}{instruction}; "
            "dataset.sha256=null takes other data"
        )
    store.write_rows(rows_sha256, rows_by_split)
    return rows_sha256, rows_by_split


def require_files(files: Files) -> None:
    """Refuse unknown split names, and shares that leave no rows for training. Raises ValueError."""
    for split in files:
        if split not in ("train", "validation", "test") and not split.startswith("test_"):
            raise ValueError(f"files: {split} must be train, validation, test or test_N")
    for split in ("train", "validation"):
        if files.get(split) is None:
            raise ValueError(f"files: there is none for {split}; there is {', '.join(files)}")
    shares = held_shares(files).values()
    if not isinstance(files["train"], str) or min([1, *shares]) <= 0 or sum(shares) >= 1:
        raise ValueError(
            f"files={dict(files)} must have a file for train, and a file or a share of train above "
            "0 for each other split, which leave some of train"
        )


def held_shares(files: Files, default: float | None = None) -> dict[str, float]:
    """Return the share of each split that has one; with a default, of all splits but train."""
    shares = {
        split: default if isinstance(share, str) else share
        for split, share in files.items()
        if split != "train"
    }
    return {split: share for split, share in shares.items() if share is not None}


def split_rows_by_shares(
    rows: list[T], shares: Mapping[str, float], seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Split rows at random by shares; rows of one group stay together, and the rest is train."""
    groups = list(dict.fromkeys(map(group, rows)))
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(groups))
    split_of_group: dict[object, str] = {}
    start = 0
    for split, share in shares.items():
        stop = start + max(1, round(share * len(groups)))
        split_of_group.update((groups[index], split) for index in order[start:stop].tolist())
        start = stop
    rows_by_split: dict[str, list[T]] = {split: [] for split in ("train", *shares)}
    for row in rows:
        rows_by_split[split_of_group.get(group(row), "train")].append(row)
    return rows_by_split


def split_rows_by_hash(
    rows: list[T], shares: Mapping[str, float], seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Split rows by shares, each by a hash of its group; the rest is train.

    So a row's split depends on its group and the seed alone, and not on the other rows.
    """
    rows_by_split: dict[str, list[T]] = {split: [] for split in ("train", *shares)}
    for row in rows:
        content = json.dumps(group(row), ensure_ascii=False).encode()
        rows_by_split[split_by_hash(content, shares, seed)].append(row)
    return rows_by_split


def split_by_hash(content: bytes, shares: Mapping[str, float], seed: int) -> str:
    """Return the split of a content: held-back ones by their shares, the rest is train."""
    digest = hashlib.sha256(f"{seed}\n".encode() + content).digest()
    uniform_point = int.from_bytes(digest[:8]) / 2**64
    for split, share in shares.items():
        if uniform_point < share:
            return split
        uniform_point -= share
    return "train"


def build_splits(
    rows_by_source: Mapping[str, list[T]], files: Files, seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Return the rows of all splits, also of those cut from train; tests first, train last."""
    if hub.ONLY in rows_by_source:
        shares = held_shares(files, HELD_SHARE)
        rows_by_split = split_rows_by_hash(rows_by_source[hub.ONLY], shares, seed, group)
    else:
        shares = held_shares(files)
        rows_cut_from_train = (
            split_rows_by_shares(rows_by_source["train"], shares, seed, group) if shares else {}
        )
        rows_by_split = {**rows_by_source, **rows_cut_from_train}
    splits = [split for split, file in files.items() if file is not None]
    return {split: rows_by_split[split] for split in sorted(splits, key=_split_sort_key)}


def splits_origin(rows_by_source: Mapping[str, list[T]], files: Files, seed: int) -> str:
    """Return where the splits come from, as a sentence."""
    shares = held_shares(files, HELD_SHARE if hub.ONLY in rows_by_source else None)
    share_texts = " and ".join(f"{split} ({share:g})" for split, share in shares.items())
    if hub.ONLY in rows_by_source:
        return (
            f"{share_texts} of one table, by the hash of each text and seed={seed}; "
            "the rest is train"
        )
    return f"{share_texts} of train, drawn with seed={seed}" if shares else "as the data have them"


def remove_repeated(
    rows_by_split: Mapping[str, list[T]], identity_of: Callable[[T], object]
) -> tuple[dict[str, list[T]], dict[str, int]]:
    """Remove from each split the rows that an earlier split holds, compared by `identity_of`.

    Returns the remaining rows, and the number of removed ones, by split.
    """
    earlier_identities: set[object] = set()
    remaining: dict[str, list[T]] = {}
    for split, rows in rows_by_split.items():
        remaining[split] = [row for row in rows if identity_of(row) not in earlier_identities]
        earlier_identities |= {identity_of(row) for row in remaining[split]}
    return remaining, {
        split: len(rows_by_split[split]) - len(rows) for split, rows in remaining.items()
    }


def left_out_notes(
    unit: str, size_by_split: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return a sentence for each split with examples left out: how many, and for what reasons.

    `size_by_split` counts these examples too; `reasons` has the counts by reason and split.
    """
    notes = []
    for split, size in size_by_split.items():
        counts = {
            reason: count_by_split[split]
            for reason, count_by_split in reasons.items()
            if count_by_split[split]
        }
        if counts:
            counts_by_reason = "; ".join(f"{reason}: {n:,}" for reason, n in counts.items())
            total = sum(counts.values())
            notes.append(f"{split}: {total:,} of {size:,} {unit} are left out ({counts_by_reason})")
    return notes


def require_remaining(
    unit: str,
    size_by_split: Mapping[str, int],
    reasons: Mapping[str, Mapping[str, int]],
    examples_by_split: Mapping[str, Sequence[object]],
) -> None:
    """Refuse a split without remaining examples, and name the reasons. Raises ValueError."""
    for split, examples in examples_by_split.items():
        if not examples:
            notes = left_out_notes(unit, {split: size_by_split[split]}, reasons)
            fault = notes[0] if notes else f"{split}: there are no {unit}"
            raise ValueError(f"{fault}; give other files or shares")


def require_several_classes(labels: Iterable[object]) -> None:
    """Refuse training examples that all have the same class. Raises ValueError."""
    classes = set(labels)
    if len(classes) < 2:
        class_names = ", ".join(map(str, classes))
        raise ValueError(f"all of train is of one class ({class_names}); there is nothing to learn")


def require_encoding(encoding: str, path: str | None) -> None:
    """Refuse an unknown encoding, and one for data that have none. Raises ValueError."""
    try:
        b"a".decode(encoding)
    except LookupError as error:
        raise ValueError(
            f"encoding={encoding}: {error}; give utf-8, latin-1, cp1252, ..."
        ) from error
    except UnicodeDecodeError:
        pass
    if path is not None and path.startswith(hub.HUB) and encoding != "utf-8":
        raise ValueError(
            f"encoding={encoding} is for files, and path={path} has none; leave it out"
        )


def has_file(directory: Path, name: str) -> bool:
    """Return whether a directory has a file of this name, packed or not."""
    return any((directory / f"{name}{ending}").is_file() for ending in ("", *text_files.PACKED))


def find_file(directory: Path, name: str) -> Path:
    """Return the path of a file, packed (NAME.gz and the like) or not. Raises ValueError."""
    for ending in ("", *text_files.PACKED):
        if (file := directory / f"{name}{ending}").is_file():
            return file
    names = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
    raise ValueError(
        f"path={directory} has no file {name}, nor {name}.gz; there is {_list_names(names)}"
    )


def read_lines(directory: Path, name: str, encoding: str = "utf-8") -> list[str]:
    """Read the lines of a file, packed (NAME.gz and the like) or not. Raises ValueError."""
    file = find_file(directory, name)
    content = b"".join(source.File(file).pieces())
    if not content.strip():
        raise ValueError(f"{file} is empty")
    zero_offset = content.find(b"\0")
    if zero_offset >= 0:
        raise ValueError(f"{file} has a zero byte at {zero_offset:,}: it is binary, or UTF-16")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not {encoding}: byte {content[error.start]:#04x} at {error.start:,}; "
            "convert it"
        ) from error
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def read_table(
    directory: Path,
    name: str,
    columns: Sequence[Sequence[str]],
    encoding: str = "utf-8",
    number_columns: Sequence[int] = (),
) -> list[tuple[str, Row]]:
    """Read columns of a table in a file, as `tables.rows` does, with the place of each row.

    Columns with an index in `number_columns` may hold numbers; a missing text is read as an empty
    one.
    """
    file = find_file(directory, name)
    return [
        (row_location, cell_texts(row_location, row, columns, number_columns))
        for row_location, row in tables.read_rows(file, columns, encoding)
    ]


def cell_texts(
    row_location: str,
    cells: Sequence[object],
    columns: Sequence[Sequence[str]],
    number_columns: Sequence[int],
) -> Row:
    """Return the cells of a row as texts; a missing text is returned as an empty one.

    Raises ValueError for a cell that is no text, and for a missing cell in `number_columns`.
    """
    texts = []
    for index, (cell, names) in enumerate(zip(cells, columns, strict=True)):
        if index in number_columns and cell is None:
            raise ValueError(f"{row_location}: column={names[0]!r} is missing; leave the row out")
        if index in number_columns and not isinstance(cell, str):
            if not isinstance(cell, int):
                kind = tables.type_name(cell)
                raise ValueError(
                    f"{row_location}: column={names[0]!r} holds {kind}, not a whole number"
                )
            texts.append(str(cell))
        else:
            texts.append("" if cell is None else tables.require_text(cell, names[0], row_location))
    return texts


def build_vocabulary(
    sentences: Iterable[Sequence[str]], special: Sequence[str], min_count: int
) -> list[str]:
    """Return special tokens, then the words of the training sentences, the most frequent first."""
    counts = Counter(chain.from_iterable(sentences))
    counts_and_words = sorted(
        (-count, token) for token, count in counts.items() if count >= min_count
    )
    if not counts_and_words:
        max_count = max(counts.values(), default=0)
        raise ValueError(
            f"min_count={min_count} leaves no word of train, which has none more than "
            f"{max_count:,} times; there is nothing to learn"
        )
    return list(dict.fromkeys([*special, *(token for _, token in counts_and_words)]))


def pad_sentences(
    sentences: Sequence[Sequence[str]], tokens: Sequence[str], filler: int, width: int
) -> np.ndarray:
    """Return the token ids of sentences, one in a row, with `filler` after each sentence."""
    # A word of the data that is spelled like padding is an unknown word.
    id_of = {token: token_id for token_id, token in enumerate(tokens) if token != PAD}
    unknown_id = id_of[UNKNOWN]
    lengths = np.array([len(sentence) for sentence in sentences])
    ids = (id_of.get(word, unknown_id) for sentence in sentences for word in sentence)
    padded_ids = np.full((len(lengths), width), filler, dtype=np.int32)
    padded_ids[np.arange(width) < lengths[:, None]] = np.fromiter(ids, np.int32, lengths.sum())
    return padded_ids


def _read_splits(path: str, files: Files, reader: Reader) -> Iterator[tuple[str, list[Row]]]:
    """Yield each split that has a file, or a table of that name on the hub, with its rows."""
    file_names = {split: file for split, file in files.items() if isinstance(file, str)}
    if path.startswith(hub.HUB):
        if not reader.columns:
            raise ValueError(f"path={path} is on the hub, and this data is read from files alone")
        split_tables = hub.load_hub_tables(path, reader.columns)
        yield from _read_tables(path, split_tables, list(file_names), reader)
        return
    location = expand_home(path)
    reads_one_table = reader.default_files is not None and file_names.items() <= {
        *reader.default_files.items()
    }
    if location.is_file() and reads_one_table:
        only_rows = reader.read(location.parent, location.name)
        if not only_rows:
            raise ValueError(f"path={path} has no rows")
        yield hub.ONLY, only_rows
        return
    if not location.is_dir():
        fault = "is one file" if location.exists() else "does not exist"
        one_file = "one table, or " if reads_one_table else ""
        raise ValueError(
            f"path={path} {fault}; give {one_file}the directory of {', '.join(file_names.values())}"
        )
    if reader.columns and hub.is_saved_dataset(location):
        split_tables = hub.load_saved_tables(location, path, reader.columns)
        names = [hub.ONLY] if hub.ONLY in split_tables and reads_one_table else list(file_names)
        yield from _read_tables(path, split_tables, names, reader, names_classes=True)
        return
    split_places = source.paths_by_split(location)
    has_folders = any(
        entry.is_dir() for entry in location.iterdir() if not entry.name.startswith(".")
    )
    if reads_one_table and reader.reads_folders and has_folders and not split_places:
        yield hub.ONLY, reader.read(location.parent, location.name)
        return
    for split, file in file_names.items():
        if reads_one_table and not has_file(location, file):
            file = _find_split_file(location, split_places.get(split, []), file, split)
        yield split, reader.read(location, file)


def _find_split_file(directory: Path, candidates: Sequence[Path], file: str, split: str) -> str:
    """Return the name of the only candidate for a split; the `file` where its parts have that name.

    Raises ValueError if there is no candidate, or if several are tables.
    """
    names = [candidate.name for candidate in candidates]
    if len(names) == 1:
        return names[0]
    if sum(tables.kind(name) is not None for name in names) > 1:
        raise ValueError(
            f"path={directory} has several tables for {split}: {_list_names(names)}; leave one"
        )
    if any(name.startswith(f"{file}.") for name in names):
        return file
    visible_names = (entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
    share = "" if split == "train" else f", or dataset.files.{split}=0.1 as a share of train"
    raise ValueError(
        f"path={directory} has no file {file}, nor another named {split}; there is "
        f"{_list_names(sorted(visible_names))}; give the path of one table{share}"
    )


def _list_names(names: Sequence[str]) -> str:
    return (", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")) or "nothing"


def _read_tables(
    path: str,
    split_tables: Mapping[str, Any],
    names: Sequence[str],
    reader: Reader,
    names_classes: bool = False,
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of the named tables of the hub or of `save_to_disk`."""
    for split in names:
        if split not in split_tables:
            share = (
                "" if split == "train" else f"; dataset.files.{split}=0.1 takes a share of train"
            )
            raise ValueError(
                f"path={path} has no {split}; there is {', '.join(split_tables)}{share}"
            )
        table = split_tables[split]
        columns = [
            tables.find_column(choice, table.column_names, path) for choice in reader.columns
        ]
        cells = hub.read_rows(f"{path}, {split}", table, columns, names_classes)
        texts = (
            cell_texts(*row, [[name] for name in columns], reader.number_columns) for row in cells
        )
        yield split, [[text.strip() for text in row] for row in texts]


def _split_sort_key(split: str) -> tuple[int, str]:
    """Return a sort key: tests first, then validation, then train."""
    return ({"validation": 1, "train": 2}.get(split, 0), split)
