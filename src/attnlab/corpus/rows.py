"""Small published sets of examples: rows of texts, read from files or from the hub."""

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
"""The file of each split, inside the directory; a number is a share of train."""

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
    """Give the SHA-256 of the rows of all splits that have files, and the rows.

    `read(directory, name)` reads a file. Of `hub:NAME` the `columns` are read instead, by one of
    their names each, from the splits that are named as in `files`; those at the places `numbers`
    may hold numbers, the others hold texts, and a missing text is an empty one. The SHA-256 is that
    of what was read, a line of JSON for each split, so it does not depend on where it lies; where
    it is given, nothing else is taken, and what was read before needs no path.
    """
    require_files(files)
    how = f"; obtain {obtain}, and give dataset.path=DIRECTORY" if obtain else ""
    if path is None:
        kept = store.recall(sha256) if sha256 else None
        if kept is None:
            what = f"the rows with sha256={sha256} are not kept here" if sha256 else "it needs data"
            raise ValueError(f"{what}{how or '; give dataset.path=DIRECTORY'}")
        return sha256 or "", kept
    try:
        rows = dict(_all(path, files, read, columns, numbers))
    except ValueError as error:
        raise ValueError(f"{error}{how}") from error
    sha = hashlib.sha256()
    for split in sorted(rows):
        sha.update(json.dumps([split, rows[split]], ensure_ascii=False).encode() + b"\n")
    found = sha.hexdigest()
    if sha256 not in (None, found):
        raise ValueError(
            f"path={path} has sha256 {found}, expected {sha256}{how}; dataset.sha256=null takes "
            "other data"
        )
    store.keep(found, rows)
    return found, rows


def require_files(files: Files) -> None:
    """Refuse splits without a name that is known, and shares that leave nothing for training."""
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


def deal(
    rows: list[T], shares: Mapping[str, float], seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Part rows at random by shares; rows of one group stay together, and the rest is train."""
    groups = list(dict.fromkeys(map(group, rows)))
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(groups))
    where: dict[object, str] = {}
    start = 0
    for split, share in shares.items():
        stop = start + max(1, round(share * len(groups)))
        where.update((groups[at], split) for at in order[start:stop].tolist())
        start = stop
    parts: dict[str, list[T]] = {split: [] for split in ("train", *shares)}
    for row in rows:
        parts[where.get(group(row), "train")].append(row)
    return parts


def parted(
    rows: Mapping[str, list[T]], files: Files, seed: int, group: Callable[[T], object]
) -> dict[str, list[T]]:
    """Give all splits, those that are shares of train among them: test, others, train."""
    shares = {split: share for split, share in files.items() if not isinstance(share, str)}
    parts = {**rows, **deal(rows["train"], shares, seed, group)} if shares else {**rows}
    return {split: parts[split] for split in sorted(files, key=_rank)}


def unheld(
    parts: Mapping[str, list[T]], what: Callable[[T], object]
) -> tuple[dict[str, list[T]], dict[str, int]]:
    """Leave out of each split what an earlier one holds; gives the splits, and how many went."""
    seen: set[object] = set()
    kept: dict[str, list[T]] = {}
    for split, rows in parts.items():
        kept[split] = [row for row in rows if what(row) not in seen]
        seen |= {what(row) for row in kept[split]}
    return kept, {split: len(parts[split]) - len(rows) for split, rows in kept.items()}


def left_out_notes(
    what: str, sizes: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return a sentence for each split of which something is left out: how many, and why.

    `sizes` counts what each split had before; `reasons` has the counts of each reason by split.
    """
    notes = []
    for split, size in sizes.items():
        counts = {why: by_split[split] for why, by_split in reasons.items() if by_split[split]}
        if counts:
            told = "; ".join(f"{why}: {count:,}" for why, count in counts.items())
            count = sum(counts.values())
            notes.append(f"{split}: {count:,} of {size:,} {what} are left out ({told})")
    return notes


def require_left(
    what: str,
    sizes: Mapping[str, int],
    reasons: Mapping[str, Mapping[str, int]],
    parts: Mapping[str, Sequence[object]],
) -> None:
    """Refuse a split of which nothing is left, in the words of its reasons. Raises ValueError."""
    for split, part in parts.items():
        if not part:
            notes = left_out_notes(what, {split: sizes[split]}, reasons)
            why = notes[0] if notes else f"{split}: there are no {what}"
            raise ValueError(f"{why}; give other files or shares")


def require_classes(labels: Iterable[object]) -> None:
    """Refuse training examples of which all have the same class. Raises ValueError."""
    classes = set(labels)
    if len(classes) < 2:
        told = ", ".join(map(str, classes))
        raise ValueError(f"all of train is of one class ({told}); there is nothing to learn")


def require_encoding(encoding: str, path: str | None) -> None:
    """Refuse an encoding that is not known, or that cannot apply. Raises ValueError."""
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


def found_file(directory: Path, name: str) -> Path:
    """Return the path of a file, or of the packed one with .gz or the like behind its name."""
    for ending in ("", *text_files.PACKED):
        if (file := directory / f"{name}{ending}").is_file():
            return file
    raise ValueError(f"path={directory} has no file {name}, nor {name}.gz")


def lines(directory: Path, name: str, encoding: str = "utf-8") -> list[str]:
    """Read the lines of a file, or of the packed one with .gz or the like behind its name."""
    file = found_file(directory, name)
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

    At the places `numbers` a column may hold numbers; a missing text is an empty one.
    """
    file = found_file(directory, name)
    return [
        (place, texts_of(place, row, columns, numbers))
        for place, row in tables.rows(file, columns, encoding)
    ]


def texts_of(
    place: str, cells: Sequence[object], columns: Sequence[Sequence[str]], numbers: Sequence[int]
) -> Row:
    """Return the cells of a row as texts; a missing text is an empty one.

    Raises ValueError for what is no text, and for what is missing where a number may stand.
    """
    texts = []
    for at, (cell, names) in enumerate(zip(cells, columns, strict=True)):
        if at in numbers and cell is None:
            raise ValueError(f"{place}: column={names[0]!r} is missing; leave the row out")
        if at in numbers and not isinstance(cell, str):
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
    """List the words of the training sentences, the most frequent first, after special tokens."""
    counts = Counter(chain.from_iterable(sentences))
    often = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    if not often:
        most = max(counts.values(), default=0)
        raise ValueError(
            f"min_count={min_count} leaves no word of train, which has none more than {most:,} "
            "times; there is nothing to learn"
        )
    return list(dict.fromkeys([*special, *(word for _, word in often)]))


def padded(
    sentences: Sequence[Sequence[str]], tokens: Sequence[str], filler: int, width: int
) -> np.ndarray:
    """Number the words of sentences, one in a row; `filler` stands behind them."""
    # A word that is written as padding is none.
    number = {token: at for at, token in enumerate(tokens) if token != PAD}
    unknown = number[UNKNOWN]
    counts = np.array([len(sentence) for sentence in sentences])
    words = (number.get(word, unknown) for sentence in sentences for word in sentence)
    rows = np.full((len(counts), width), filler, dtype=np.int32)
    rows[np.arange(width) < counts[:, None]] = np.fromiter(words, np.int32, counts.sum())
    return rows


def _all(
    path: str,
    files: Files,
    read: Callable[[Path, str], list[Row]],
    columns: Sequence[Sequence[str]],
    numbers: Sequence[int],
) -> Iterator[tuple[str, list[Row]]]:
    named = {split: file for split, file in files.items() if isinstance(file, str)}
    if path.startswith(source.HUB):
        if not columns:
            raise ValueError(f"path={path} is on the hub, and this data is read from files alone")
        there = source.hub(path, columns)
        for split in named:
            if split not in there:
                raise ValueError(f"path={path} has no {split}; there is {', '.join(there)}")
            names = there[split].column_names
            taken = [source.require_column(choice, names, path) for choice in columns]
            read_rows = source.cells(f"{path}, {split}", there[split], taken)
            texts = (texts_of(*row, [[name] for name in taken], numbers) for row in read_rows)
            yield split, [[text.strip() for text in row] for row in texts]
        return
    directory = given_path(path)
    if not directory.is_dir():
        what = "is one file" if directory.exists() else "does not exist"
        raise ValueError(f"path={path} {what}; give the directory of {', '.join(named.values())}")
    for split, file in named.items():
        yield split, read(directory, file)


def _rank(split: str) -> tuple[int, str]:
    return ({"validation": 1, "train": 2}.get(split, 0), split)
