"""Small published datasets: rows of texts, read from files or from the hub."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from attnlab.corpus import files as text_files
from attnlab.corpus import source, store, tables
from attnlab.environment import given_path
from attnlab.ranges import Share

Row = list[str]
T = TypeVar("T")
Files = Mapping[str, str | Share]
"""The file of each split, inside the directory; a number is a share of the training rows."""

PAD, UNKNOWN = "<pad>", "<unk>"


def load(
    path: str | None,
    files: Files,
    sha256: str | None,
    obtain: str | None,
    read: Callable[[Path, str], list[Row]],
    columns: Sequence[Sequence[str]] = (),
    numbers: Sequence[int] = (),
) -> tuple[str, dict[str, list[Row]]]:
    """Load the rows of all splits that have files; return their SHA-256 and the rows.

    `read(directory, name)` reads a file. For `hub:NAME`, the `columns` are read instead, each by
    one of its names, from the splits that have the names in `files`. Columns whose index is in
    `numbers` may hold numbers; the others hold texts, and a missing text is read as an empty one.
    The SHA-256 is over the rows, one line of JSON for each split, so it does not depend on the
    path. With a `sha256`, other rows are refused, and rows that are in the cache need no path.
    """
    require_files(files)
    instruction = f"; obtain {obtain}, and give dataset.path=DIRECTORY" if obtain else ""
    if path is None:
        cached_rows = store.load_rows(sha256) if sha256 else None
        if cached_rows is None:
            fault = (
                f"the rows with sha256={sha256} are not kept here" if sha256 else "it needs data"
            )
            raise ValueError(f"{fault}{instruction or '; give dataset.path=DIRECTORY'}")
        return sha256 or "", cached_rows
    try:
        rows = dict(_read_splits(path, files, read, columns, numbers))
    except ValueError as error:
        raise ValueError(f"{error}{instruction}") from error
    sha = hashlib.sha256()
    for split in sorted(rows):
        sha.update(json.dumps([split, rows[split]], ensure_ascii=False).encode() + b"\n")
    rows_sha256 = sha.hexdigest()
    if sha256 not in (None, rows_sha256):
        raise ValueError(
            f"path={path} has sha256 {rows_sha256}, expected {sha256}{instruction}; "
            "dataset.sha256=null takes other data"
        )
    store.write_rows(rows_sha256, rows)
    return rows_sha256, rows


def require_files(files: Files) -> None:
    """Refuse unknown split names, and shares that leave no rows for training. Raises ValueError."""
    for split in files:
        if split not in ("train", "validation", "test") and not split.startswith("test_"):
            raise ValueError(f"files: {split} must be train, validation, test or test_N")
    for split in ("train", "validation"):
        if split not in files:
            raise ValueError(f"files: there is none for {split}; there is {', '.join(files)}")
    shares = [share for share in files.values() if not isinstance(share, str)]
    if not isinstance(files["train"], str) or min([1, *shares]) <= 0 or sum(shares) >= 1:
        raise ValueError(
            f"files={dict(files)} must have a file for train, and a file or a share of train above "
            "0 for each other split, which leave some of train"
        )


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


def build_splits(
    rows: Mapping[str, list[T]], files: Files, seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Return the rows of all splits, also of those cut from train; tests first, train last."""
    shares = {split: share for split, share in files.items() if not isinstance(share, str)}
    rows_by_split = (
        {**rows, **split_rows_by_shares(rows["train"], shares, seed, group)} if shares else {**rows}
    )
    return {split: rows_by_split[split] for split in sorted(files, key=_split_order)}


def remove_repeated(
    parts: Mapping[str, list[T]], what: Callable[[T], object]
) -> tuple[dict[str, list[T]], dict[str, int]]:
    """Remove from each split the rows that an earlier split holds, by their `what`.

    Returns the remaining rows, and the number of removed ones, by split.
    """
    earlier: set[object] = set()
    remaining: dict[str, list[T]] = {}
    for split, rows in parts.items():
        remaining[split] = [row for row in rows if what(row) not in earlier]
        earlier |= {what(row) for row in remaining[split]}
    return remaining, {split: len(parts[split]) - len(rows) for split, rows in remaining.items()}


def left_out_notes(
    what: str, sizes: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return a sentence for each split with examples left out: how many, and for what reasons.

    `sizes` are the splits' sizes with these examples; `reasons` has the counts by reason and split.
    """
    notes = []
    for split, size in sizes.items():
        counts = {
            reason: by_split[split] for reason, by_split in reasons.items() if by_split[split]
        }
        if counts:
            counts_by_reason = "; ".join(f"{reason}: {n:,}" for reason, n in counts.items())
            total = sum(counts.values())
            notes.append(f"{split}: {total:,} of {size:,} {what} are left out ({counts_by_reason})")
    return notes


def require_left(
    what: str,
    sizes: Mapping[str, int],
    reasons: Mapping[str, Mapping[str, int]],
    parts: Mapping[str, Sequence[object]],
) -> None:
    """Refuse a split without remaining examples, and name the reasons. Raises ValueError."""
    for split, examples in parts.items():
        if not examples:
            notes = left_out_notes(what, {split: sizes[split]}, reasons)
            fault = notes[0] if notes else f"{split}: there are no {what}"
            raise ValueError(f"{fault}; give other files or shares")


def require_classes(labels: Iterable[object]) -> None:
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
    if path is not None and path.startswith(source.HUB) and encoding != "utf-8":
        raise ValueError(
            f"encoding={encoding} is for files, and path={path} has none; leave it out"
        )


def find_file(directory: Path, name: str) -> Path:
    """Return the path of a file, packed (NAME.gz and the like) or not. Raises ValueError."""
    for ending in ("", *text_files.PACKED):
        if (file := directory / f"{name}{ending}").is_file():
            return file
    raise ValueError(f"path={directory} has no file {name}, nor {name}.gz")


def lines(directory: Path, name: str, encoding: str = "utf-8") -> list[str]:
    """Read the lines of a file, packed (NAME.gz and the like) or not. Raises ValueError."""
    file = find_file(directory, name)
    content = b"".join(source.File(file).pieces())
    if not content.strip():
        raise ValueError(f"{file} is empty")
    if (zero := content.find(b"\0")) >= 0:
        raise ValueError(f"{file} has a zero byte at {zero:,}: it is binary, or UTF-16")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not {encoding}: byte {content[error.start]:#04x} at {error.start:,}; "
            "convert it"
        ) from error
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def table(
    directory: Path,
    name: str,
    columns: Sequence[Sequence[str]],
    encoding: str = "utf-8",
    numbers: Sequence[int] = (),
) -> list[tuple[str, Row]]:
    """Read columns of a table in a file, as `tables.rows` does, with the place of each row.

    Columns whose index is in `numbers` may hold numbers; a missing text is read as an empty one.
    """
    file = find_file(directory, name)
    return [
        (place, texts_of(place, row, columns, numbers))
        for place, row in tables.rows(file, columns, encoding)
    ]


def texts_of(
    place: str, cells: Sequence[object], columns: Sequence[Sequence[str]], numbers: Sequence[int]
) -> Row:
    """Return the cells of a row as texts; a missing text is returned as an empty one.

    Raises ValueError for a cell that is no text, and for a missing cell of a column in `numbers`.
    """
    texts = []
    for index, (cell, names) in enumerate(zip(cells, columns, strict=True)):
        if index in numbers and cell is None:
            raise ValueError(f"{place}: column={names[0]!r} is missing; leave the row out")
        if index in numbers and not isinstance(cell, str):
            if not isinstance(cell, int):
                kind = tables.type_of(cell)
                raise ValueError(f"{place}: column={names[0]!r} holds {kind}, not a whole number")
            texts.append(str(cell))
        else:
            texts.append("" if cell is None else tables.text_of(cell, names[0], place))
    return texts


def vocabulary(
    sentences: Iterable[Sequence[str]], special: Sequence[str], min_count: int
) -> list[str]:
    """Return special tokens, then the words of the training sentences, the most frequent first."""
    counts = Counter(chain.from_iterable(sentences))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    if not frequent:
        max_count = max(counts.values(), default=0)
        raise ValueError(
            f"min_count={min_count} leaves no word of train, which has none more than "
            f"{max_count:,} times; there is nothing to learn"
        )
    return list(dict.fromkeys([*special, *(word for _, word in frequent)]))


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


def _read_splits(
    path: str,
    files: Files,
    read: Callable[[Path, str], list[Row]],
    columns: Sequence[Sequence[str]],
    numbers: Sequence[int],
) -> Iterator[tuple[str, list[Row]]]:
    """Yield each split that has a file, or a table of that name on the hub, with its rows."""
    file_names = {split: file for split, file in files.items() if isinstance(file, str)}
    if path.startswith(source.HUB):
        if not columns:
            raise ValueError(f"path={path} is on the hub, and this data is read from files alone")
        hub_tables = source.load_hub_tables(path, columns)
        for split in file_names:
            if split not in hub_tables:
                raise ValueError(f"path={path} has no {split}; there is {', '.join(hub_tables)}")
            hub_table = hub_tables[split]
            names = [
                source.require_column(choice, hub_table.column_names, path) for choice in columns
            ]
            cells = source.cells(f"{path}, {split}", hub_table, names)
            texts = (texts_of(*row, [[name] for name in names], numbers) for row in cells)
            yield split, [[text.strip() for text in row] for row in texts]
        return
    directory = given_path(path)
    if not directory.is_dir():
        fault = "is one file" if directory.exists() else "does not exist"
        raise ValueError(
            f"path={path} {fault}; give the directory of {', '.join(file_names.values())}"
        )
    for split, file in file_names.items():
        yield split, read(directory, file)


def _split_order(split: str) -> tuple[int, str]:
    """Return a sort key: tests first, then validation, then train."""
    return ({"validation": 1, "train": 2}.get(split, 0), split)
