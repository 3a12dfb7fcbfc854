"""Which copies of a run stand elsewhere: a line in mirrors.jsonl for each, appended and never cut.

A logger that followed the run adds its line at the end, and `attnlab sync` one for each copy that
it sends later. So no run is sent twice to the same place.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from attnlab.run_record import write
from attnlab.run_record.forms import Mirror, form_fault
from attnlab.run_record.json_lines import append_line, read_lines
from attnlab.run_record.read import MOST_TEXT, content

FILE = "mirrors.jsonl"
MARK = "mirror.json"
"""The file in a copy that was sent later, with its line: the copy is complete if it is there."""
ONLINE = "online"
"""The place of a copy that was uploaded."""


def mirrors(run_dir: Path) -> list[Mirror]:
    """Return the copies of a run, the oldest first; a line that cannot be read is passed over.

    Raises RecordError if the file cannot be read.
    """
    return [entry for entry in read_lines(run_dir / FILE) if not form_fault(entry, Mirror)]


def find_mirror(
    entries: Sequence[Mirror], tool: str, place: str | None, project: str | None
) -> Mirror | None:
    """Return the newest copy in a tool, at a place (None: at any) and in a project."""
    matching = [
        entry
        for entry in entries
        if (entry["tool"], entry["project"]) == (tool, project) and place in (None, entry["place"])
    ]
    return matching[-1] if matching else None


def new_mirror(tool: str, place: str, project: str | None, run_id: str) -> Mirror:
    """Return the line of a copy that is complete now."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Mirror(tool=tool, place=place, project=project, run_id=run_id, at=at)


def add_mirror(run_dir: Path, entry: Mirror) -> None:
    """Append the line of a copy; it is on the disk when this returns."""
    append_line(run_dir / FILE, entry)


def mark(copy: Path, entry: Mirror) -> None:
    """Write the line into the copy itself, before it is moved to its place."""
    write.new_file(copy / MARK, (json.dumps(entry) + "\n").encode())


def marked(copy: Path) -> Mirror | None:
    """Return the line that a copy holds itself; None if it holds none."""
    try:
        entry = json.loads(content(copy / MARK, copy, MOST_TEXT))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return None if form_fault(entry, Mirror) else entry


def place_name(path: Path, run_dir: Path) -> str:
    """Return how a place is written down: from the run's directory on, if it lies in it."""
    try:
        return str(path.resolve().relative_to(run_dir.resolve()))
    except ValueError:
        return str(path.resolve())
