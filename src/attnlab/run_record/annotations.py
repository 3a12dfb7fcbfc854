"""What people and sweeps say of a run afterwards: an append-only file beside its record.

Each line of `annotations.jsonl` is a JSON object with `at` (UTC), `kind` and `text`. The kinds are
tag, untag, note, sweep, archive and restore. Nothing is rewritten: a tag that is taken away is a
line more. The file is no part of the run's identity or result, and a line that cannot be read, such
as the torn end of a killed write, is passed over.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.errors import RecordError, RequestError
from attnlab.run_record import write
from attnlab.run_record.read import content

FILE = "annotations.jsonl"
KINDS = ("tag", "untag", "note", "sweep", "archive", "restore")
MOST_FILE, MOST_TEXT, MOST_TAG = 16 << 20, 10_000, 64
"""The largest size of the file in bytes, and the most characters of a note and of a tag."""


@dataclass(frozen=True)
class Note:
    """A sentence that somebody wrote about a run."""

    at: str
    """The time at which it was written, in UTC."""
    text: str


@dataclass(frozen=True)
class Annotations:
    """What has been said of a run."""

    tags: tuple[str, ...] = ()
    """In the order in which they were given."""
    notes: tuple[Note, ...] = ()
    """From the first to the last."""
    sweeps: tuple[str, ...] = ()
    """The names of the sweeps that the run is a part of."""
    archived: bool = False
    """Whether lists and comparisons leave the run out, unless it is named."""


def read_annotations(run_dir: Path) -> Annotations:
    """Return what has been said of a run; nothing where there is no file, or no line of it reads.

    Raises RecordError for a file that is no plain file of the run, or too large.
    """
    try:
        text = content(run_dir / FILE, run_dir, MOST_FILE).decode(errors="replace")
    except FileNotFoundError:
        return Annotations()
    tags: dict[str, None] = {}
    sweeps: dict[str, None] = {}
    notes: list[Note] = []
    archived = False
    for line in text.split("\n"):
        match _parse(line):
            case ("tag", _, tag):
                tags[tag] = None
            case ("untag", _, tag):
                tags.pop(tag, None)
            case ("sweep", _, name):
                sweeps[name] = None
            case ("note", at, note):
                notes.append(Note(at, note))
            case ("archive" | "restore" as kind, _, _):
                archived = kind == "archive"
    return Annotations(tuple(tags), tuple(notes), tuple(sweeps), archived)


def annotate(run_dir: Path, kind: str, text: str = "") -> None:
    """Append a line to what has been said of a run; it is on the disk when this returns.

    Raises RequestError for a text that cannot be kept, and RecordError where the file cannot be
    written.
    """
    assert kind in KINDS
    require_text(kind, text)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps({"at": at, "kind": kind, "text": text})
    try:
        separator = "\n" if _has_torn_end(run_dir) else ""
        stream = write.Stream(run_dir / FILE)
        try:
            # One call writes the whole line, so that lines of two writers never mix.
            stream.append(f"{separator}{line}\n".encode())
            stream.sync()
        finally:
            stream.close()
    except OSError as error:
        raise RecordError(f"{run_dir / FILE} cannot be written ({error.strerror})") from error


def require_text(kind: str, text: str) -> None:
    """Raise RequestError for the text of an annotation that cannot be kept."""
    if kind in ("tag", "untag"):
        is_tag = 0 < len(text) <= MOST_TAG and text.isprintable() and not set(text) & {" ", ","}
        if not is_tag:
            raise RequestError(
                f"tag {text!r}: expected a word of at most {MOST_TAG} characters, without spaces "
                "and commas; a sentence is a note"
            )
    elif kind == "note" and not 0 < len(text.strip()) <= MOST_TEXT:
        raise RequestError(f"note: expected 1 to {MOST_TEXT:,} characters, got {len(text):,}")


def _parse(line: str) -> tuple[str, str, str] | None:
    """Return kind, time and text of a line; None for one that cannot be read."""
    entry: Any = None
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
    if not isinstance(entry, Mapping):
        return None
    kind, at, text = (entry.get(key) for key in ("kind", "at", "text"))
    if not (isinstance(kind, str) and isinstance(at, str) and isinstance(text, str)):
        return None
    return kind, at, text


def _has_torn_end(run_dir: Path) -> bool:
    """Return whether the file ends within a line, as after a killed write."""
    try:
        text = content(run_dir / FILE, run_dir, MOST_FILE)
    except FileNotFoundError:
        return False
    return not text.endswith(b"\n")
