"""Tokenised corpora, kept by the SHA-256 of their text and read where they lie.

    $ATTNLAB_CACHE/corpora/SHA256-TOKENIZER/  # default: ~/.cache/attnlab
      tokens.npy         # a token's number each, memory-mapped
      vocabulary.json    # the tokens by their number

An entry is born complete by a rename, so that two processes may make it at once and a killed one
leaves nothing that is read. To delete the directory costs time alone.
"""

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attnlab.corpus.source import Source
from attnlab.tokenizer.base import Tokenizer, number_type

TEMPORARY = ".tmp-"
DAY = 24 * 3600


class Tokenised(NamedTuple):
    """A text as numbers of tokens."""

    tokens: np.ndarray
    vocabulary: list[str]


def directory() -> Path:
    """Give where tokenised corpora are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("ATTNLAB_CACHE", f"{base}/attnlab")).expanduser() / "corpora"


def load(sha256: str, tokenizer: Tokenizer) -> Tokenised | None:
    """Open what an earlier process has made; None where there is nothing."""
    entry = _entry(sha256, tokenizer)
    try:
        vocabulary = json.loads((entry / "vocabulary.json").read_text())
        if not isinstance(vocabulary, list):
            raise ValueError("its vocabulary is no list")
        tokens = np.load(entry / "tokens.npy", mmap_mode="r")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{entry} is damaged ({error}); delete it") from error
    return Tokenised(tokens, vocabulary)


def make(source: Source, sha256: str, tokenizer: Tokenizer) -> Tokenised:
    """Tokenise a text, unless that was done before. Raises ValueError where it cannot be read."""
    if there := load(sha256, tokenizer):
        return there
    entry = _entry(sha256, tokenizer)
    entry.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(entry.parent)
    born = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=entry.parent))
    try:
        vocabulary = tokenizer.vocabulary(source.pieces())
        _write(born / "tokens.npy", source, tokenizer, vocabulary)
        with (born / "vocabulary.json").open("w") as file:
            json.dump(vocabulary, file)
            file.flush()
            os.fsync(file.fileno())
        # Fails where another process was first; then its entry is taken.
        with suppress(OSError):
            born.rename(entry)
    finally:
        shutil.rmtree(born, ignore_errors=True)
    made = load(sha256, tokenizer)
    if made is None:
        raise ValueError(f"{entry} cannot be made; free its place")
    return made


def _entry(sha256: str, tokenizer: Tokenizer) -> Path:
    return directory() / f"{sha256}-{tokenizer.key}"


def _write(path: Path, source: Source, tokenizer: Tokenizer, vocabulary: list[str]) -> None:
    """Write numbers as they come; the header says how many only at the end."""
    kind, count = np.dtype(number_type(len(vocabulary))), 0
    with path.open("wb") as file:
        file.write(_header(kind, 0))
        for numbers in tokenizer.encode(source.pieces(), vocabulary):
            file.write(np.ascontiguousarray(numbers, dtype=kind).data)
            count += len(numbers)
        file.seek(0)
        file.write(_header(kind, count))
        file.flush()
        os.fsync(file.fileno())


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
