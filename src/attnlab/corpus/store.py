"""Tokenised corpora, kept by the SHA-256 of their text and read where they lie.

    $ATTNLAB_CACHE/corpora/SHA256-TOKENIZER[-PARTS]/  # default: ~/.cache/attnlab
      tokens.npy         # a token's number each, memory-mapped
      vocabulary.json    # the tokens by their number
      parts.json         # of a corpus in parts: their tokens, and what its tokenizer has learnt

An entry is born complete by a rename, so that two processes may make it at once and a killed one
leaves nothing that is read. To delete the directory costs time alone.
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
"""The name of the only part of a corpus that is not parted."""


class Tokenised(NamedTuple):
    """A text as numbers of tokens."""

    tokens: np.ndarray
    vocabulary: list[str]
    parts: dict[str, np.ndarray]
    """The tokens of each part of a corpus that is parted."""


def directory() -> Path:
    """Give where tokenised corpora are kept."""
    return cache_dir() / "corpora"


def load(sha256: str, tokenizer: Tokenizer, parting: str = WHOLE) -> Tokenised | None:
    """Open what an earlier process has made; None where there is nothing.

    `parting` says how the corpus is parted. The tokenizer recalls what it has learnt.
    """
    entry = _entry(sha256, tokenizer, parting)
    try:
        vocabulary = _read(entry / "vocabulary.json", list, "vocabulary is no list")
        tokens = np.load(entry / "tokens.npy", mmap_mode="r")
        told = _read(entry / "parts.json", dict, "parts are no names") if parting else {}
        parts, start = {}, 0
        for name, count in told.get("tokens", {}).items():
            parts[name] = tokens[start : start + count]
            start += count
        if parting and start != len(tokens):
            raise ValueError(f"its parts have {start} of {len(tokens)} tokens")
        if tokenizer.learns:
            tokenizer.recall(told["learnt"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise ValueError(f"{entry} is damaged ({error}); delete it") from error
    return Tokenised(tokens, vocabulary, parts)


def make(
    parts: Mapping[str, Source], sha256: str, tokenizer: Tokenizer, parting: str = WHOLE
) -> Tokenised:
    """Tokenise a text, unless that was done before. Raises ValueError where it cannot be read.

    Its parts are tokenised each for itself. A tokenizer that learns sees that named train alone.
    """
    if there := load(sha256, tokenizer, parting):
        return there
    entry = _entry(sha256, tokenizer, parting)
    with _born(entry) as born:
        seen = [parts["train"]] if tokenizer.learns else parts.values()
        vocabulary = tokenizer.vocabulary(chain.from_iterable(part.pieces() for part in seen))
        counts = _write(born / "tokens.npy", parts, tokenizer, vocabulary)
        _keep(born / "vocabulary.json", vocabulary)
        if parting:
            _keep(born / "parts.json", {"tokens": counts, "learnt": tokenizer.learnt})
    made = load(sha256, tokenizer, parting)
    if made is None:
        raise ValueError(f"{entry} cannot be made; free its place")
    return made


def recall(sha256: str) -> Any | None:
    """Open what was kept under this name; None where there is nothing."""
    _require_sha256(sha256)
    entry = directory() / f"{sha256}-rows"
    try:
        return _read(entry / "rows.json", dict, "rows have no splits")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{entry} is damaged ({error}); delete it") from error


def keep(sha256: str, rows: Mapping[str, Any]) -> None:
    """Keep small data that need no tokenizer, so that they are found without their files."""
    entry = directory() / f"{sha256}-rows"
    if not entry.exists():
        with _born(entry) as born:
            _keep(born / "rows.json", rows)


def _entry(sha256: str, tokenizer: Tokenizer, parting: str) -> Path:
    _require_sha256(sha256)
    return directory() / "-".join(filter(None, (sha256, tokenizer.key, parting)))


def _require_sha256(text: str) -> None:
    """Refuse what would name another place than one of ours. Raises ValueError."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"sha256={text!r} is no SHA-256: 64 hexadecimal digits are expected")


@contextmanager
def _born(entry: Path) -> Iterator[Path]:
    """Give a directory to fill; it becomes the entry when it is whole."""
    require_writable(entry.parent, "ATTNLAB_CACHE")
    entry.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(entry.parent)
    born = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=entry.parent))
    try:
        yield born
        # Fails where another process was first; then its entry is taken.
        with suppress(OSError):
            born.rename(entry)
    finally:
        shutil.rmtree(born, ignore_errors=True)


def _keep(path: Path, value: Any) -> None:
    with path.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, kind: type, said: str) -> Any:
    value = json.loads(path.read_text())
    if not isinstance(value, kind):
        raise ValueError(f"its {said}")
    return value


def _write(
    path: Path, parts: Mapping[str, Source], tokenizer: Tokenizer, vocabulary: list[str]
) -> dict[str, int]:
    """Write numbers as they come, and count each part's; the header says how many at the end."""
    kind, counts = np.dtype(number_type(len(vocabulary))), dict.fromkeys(parts, 0)
    with path.open("wb") as file:
        file.write(_header(kind, 0))
        for name, part in parts.items():
            for numbers in tokenizer.encode(part.pieces(), vocabulary):
                file.write(np.ascontiguousarray(numbers, dtype=kind).data)
                counts[name] += len(numbers)
        file.seek(0)
        file.write(_header(kind, sum(counts.values())))
        file.flush()
        os.fsync(file.fileno())
    return counts


def _header(kind: np.dtype, count: int) -> bytes:
    """Give numpy's header of a row of numbers; its length does not depend on their count."""
    said = f"{{'descr': {kind.str!r}, 'fortran_order': False, 'shape': ({count},), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + f"{said:<117}\n".encode()


def _clear_leftovers(parent: Path) -> None:
    """Remove what killed processes left a day ago or earlier."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > DAY:
                shutil.rmtree(leftover, ignore_errors=True)
