"""The cache of tokenised corpora, by the SHA-256 of their text; tokens are memory-mapped.

    $ATTNLAB_CACHE/corpora/SHA256-TOKENIZER[-PARTS]/  # default: ~/.cache/attnlab
      tokens.npy         # a token's number each, memory-mapped
      vocabulary.json    # the tokens by their number
      parts.json         # for a corpus in parts: their token counts, and the tokenizer's state

A complete entry appears by a rename, so that two processes may write it at once and a killed one
leaves nothing that is read. Deleting the directory costs only the time to tokenise again.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attnlab.corpus.source import Source
from attnlab.environment import cache_dir
from attnlab.places import require_writable
from attnlab.tokenizer.base import Tokenizer, number_type

TEMPORARY = ".tmp-"
DAY = 24 * 3600


WHOLE = ""
"""The name of the only part of a corpus that is not split into parts."""
OWN = "own"
"""Stands for a split that the corpus brings, in the name of how it is split into parts."""


class Tokenised(NamedTuple):
    """A text as token ids."""

    tokens: np.ndarray
    vocabulary: list[str]
    tokens_by_part: dict[str, np.ndarray]
    """The token ids of each part, for a corpus that is split into parts."""


def directory() -> Path:
    """Return the directory of the cache."""
    return cache_dir() / "corpora"


def load(sha256: str, tokenizer: Tokenizer, partition: str = WHOLE) -> Tokenised | None:
    """Load a tokenised corpus from the cache; None if it is not there.

    `partition` names how the corpus is split into parts. A tokenizer that learns gets its state
    back. Raises ValueError if the entry is damaged.
    """
    entry = _entry_path(sha256, tokenizer, partition)
    try:
        vocabulary = _read_json(entry / "vocabulary.json", list, "vocabulary is no list")
        tokens = np.load(entry / "tokens.npy", mmap_mode="r")
        metadata = _read_json(entry / "parts.json", dict, "parts are no names") if partition else {}
        tokens_by_part, start = {}, 0
        for name, count in metadata.get("tokens", {}).items():
            tokens_by_part[name] = tokens[start : start + count]
            start += count
        if partition and start != len(tokens):
            raise ValueError(f"its parts have {start} of {len(tokens)} tokens")
        if tokenizer.learns:
            tokenizer.load_state(metadata["learnt"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise ValueError(f"{entry} is damaged ({error}); delete it") from error
    return Tokenised(tokens, vocabulary, tokens_by_part)


def load_or_tokenise(
    source_by_part: Mapping[str, Source], sha256: str, tokenizer: Tokenizer, partition: str = WHOLE
) -> Tokenised:
    """Load a tokenised text, or tokenise it. Raises ValueError if it cannot be read.

    Each part is tokenised on its own. A tokenizer that learns reads the part named train alone.
    """
    if cached := load(sha256, tokenizer, partition):
        return cached
    entry = _entry_path(sha256, tokenizer, partition)
    with _new_entry(entry) as temporary_directory:
        vocabulary_sources = (
            [source_by_part["train"]] if tokenizer.learns else source_by_part.values()
        )
        pieces = chain.from_iterable(part.pieces() for part in vocabulary_sources)
        vocabulary = tokenizer.vocabulary(pieces)
        counts = _write_tokens(
            temporary_directory / "tokens.npy", source_by_part, tokenizer, vocabulary
        )
        _write_json(temporary_directory / "vocabulary.json", vocabulary)
        if partition:
            _write_json(
                temporary_directory / "parts.json", {"tokens": counts, "learnt": tokenizer.state}
            )
    tokenised = load(sha256, tokenizer, partition)
    if tokenised is None:
        raise ValueError(f"{entry} cannot be made; free its place")
    return tokenised


def load_rows(sha256: str) -> Any | None:
    """Load the small data with this SHA-256 from the cache; None if they are not there."""
    _require_sha256(sha256)
    entry = directory() / f"{sha256}-rows"
    try:
        return _read_json(entry / "rows.json", dict, "rows have no splits")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{entry} is damaged ({error}); delete it") from error


def write_rows(sha256: str, rows: Mapping[str, Any]) -> None:
    """Write small data that need no tokenizer to the cache, so that they load without a path."""
    entry = directory() / f"{sha256}-rows"
    if not entry.exists():
        with _new_entry(entry) as temporary_directory:
            _write_json(temporary_directory / "rows.json", rows)


def _entry_path(sha256: str, tokenizer: Tokenizer, partition: str) -> Path:
    _require_sha256(sha256)
    return directory() / "-".join(filter(None, (sha256, tokenizer.key, partition)))


def _require_sha256(text: str) -> None:
    """Refuse a text that is no SHA-256, so that it names no path outside the cache."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"sha256={text!r} is no SHA-256: 64 hexadecimal digits are expected")


@contextmanager
def _new_entry(entry: Path) -> Iterator[Path]:
    """Create a directory to fill, which becomes the entry at the end of the context."""
    require_writable(entry.parent, "ATTNLAB_CACHE")
    entry.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(entry.parent)
    temporary_directory = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=entry.parent))
    try:
        yield temporary_directory
        # Fails if another process was first; then its entry is used.
        with suppress(OSError):
            temporary_directory.rename(entry)
    finally:
        shutil.rmtree(temporary_directory, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    with path.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path, kind: type, fault: str) -> Any:
    """Load JSON of a type. Raises ValueError with the `fault` for a value of another type."""
    value = json.loads(path.read_text())
    if not isinstance(value, kind):
        raise ValueError(f"its {fault}")
    return value


def _write_tokens(
    path: Path, source_by_part: Mapping[str, Source], tokenizer: Tokenizer, vocabulary: list[str]
) -> dict[str, int]:
    """Write the token ids of all parts, piece by piece, and return the number of each part.

    The header has the total number, so it is written again at the end.
    """
    dtype, counts = np.dtype(number_type(len(vocabulary))), dict.fromkeys(source_by_part, 0)
    with path.open("wb") as file:
        file.write(_npy_header(dtype, 0))
        for name, source in source_by_part.items():
            for ids in tokenizer.encode(source.pieces(), vocabulary):
                file.write(np.ascontiguousarray(ids, dtype=dtype).data)
                counts[name] += len(ids)
        file.seek(0)
        file.write(_npy_header(dtype, sum(counts.values())))
        file.flush()
        os.fsync(file.fileno())
    return counts


def _npy_header(dtype: np.dtype, count: int) -> bytes:
    """Return the .npy header of a vector; the header's length does not depend on `count`."""
    fields = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': ({count},), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + f"{fields:<117}\n".encode()


def _clear_leftovers(parent: Path) -> None:
    """Remove temporary directories that killed processes left at least a day ago."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > DAY:
                shutil.rmtree(leftover, ignore_errors=True)
