"""What people and sweeps say of a run afterwards: an append-only file beside its record.

Each line of `annotations.jsonl` is a JSON object with `at` (UTC), `kind` and `text`. The kinds are
tag, untag, note, sweep, archive and restore. Nothing is rewritten: a tag that is taken away is a
line more. The file is no part of the run's identity or result, and a line that cannot be read, such
as the torn end of a killed write, is passed over.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.errors import RecordError, RequestError
from attnlab.run_record.json_lines import append_line, read_values

FILE = "annotations.jsonl"
KINDS = ("tag", "untag", "note", "sweep", "archive", "restore")
MOST_NOTE, MOST_TAG = 10_000, 64
"""The most characters of a note and of a tag."""


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
    tags: dict[str, None] = {}
    sweeps: dict[str, None] = {}
    notes: list[Note] = []
    archived = False
    for entry in read_values(run_dir / FILE):
        match _parse_entry(entry):
            case ("tag", _, tag):
                tags[tag] = None
            case ("untag", _, tag):
                tags.pop(tag, None)
            case ("sweep", _, sweep):
                sweeps[sweep] = None
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
    require_storable_text(kind, text)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        append_line(run_dir / FILE, {"at": now, "kind": kind, "text": text})
    except OSError as error:
        raise RecordError(f"{run_dir / FILE} cannot be written ({error.strerror})") from error


def require_storable_text(kind: str, text: str) -> None:
    """Raise RequestError for the text of an annotation that cannot be kept."""
    if kind in ("tag", "untag"):
        is_tag = 0 < len(text) <= MOST_TAG and text.isprintable() and not set(text) & {" ", ","}
        if not is_tag:
            raise RequestError(
                f"tag {text!r}: expected a word of at most {MOST_TAG} characters, without spaces "
                "and commas; a sentence is a note"
            )
    elif kind == "note" and not 0 < len(text.strip()) <= MOST_NOTE:
        raise RequestError(f"note: expected 1 to {MOST_NOTE:,} characters, got {len(text):,}")


def _parse_entry(entry: Any) -> tuple[str, str, str] | None:
    """Return kind, time and text of a line; None for one that says something else."""
    match entry:
        case {"kind": str(kind), "at": str(at), "text": str(text)}:
            return kind, at, text
    return None
