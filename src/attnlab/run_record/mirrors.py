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
from attnlab.run_record.json_lines import append_line, read_values
from attnlab.run_record.read import MOST_TEXT, read_plain_file

FILE = "mirrors.jsonl"
MARK = "mirror.json"
"""The file in a copy that was sent later, with its line: the copy is complete if it is there."""
ONLINE = "online"
"""The place of a copy that was uploaded."""


def read_mirrors(run_dir: Path) -> list[Mirror]:
    """Return the copies of a run, the oldest first; a line that cannot be read is passed over.

    Raises RecordError if the file cannot be read.
    """
    return [entry for entry in read_values(run_dir / FILE) if not form_fault(entry, Mirror)]


def find_mirror(
    mirrors: Sequence[Mirror], tool: str, place: str | None, project: str | None
) -> Mirror | None:
    """Return the newest copy in a tool, at a place (None: at any) and in a project."""
    matching_mirrors = [
        mirror
        for mirror in mirrors
        if (mirror["tool"], mirror["project"]) == (tool, project)
        and place in (None, mirror["place"])
    ]
    return matching_mirrors[-1] if matching_mirrors else None


def new_mirror(tool: str, place: str, project: str | None, run_id: str) -> Mirror:
    """Return the line of a copy that is complete now."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Mirror(tool=tool, place=place, project=project, run_id=run_id, at=now)


def add_mirror(run_dir: Path, mirror: Mirror) -> None:
    """Append the line of a copy; it is on the disk when this returns."""
    append_line(run_dir / FILE, mirror)


def write_mark(copy_dir: Path, mirror: Mirror) -> None:
    """Write the line into the copy itself, before it is moved to its place."""
    write.create_file(copy_dir / MARK, (json.dumps(mirror) + "\n").encode())


def read_mark(copy_dir: Path) -> Mirror | None:
    """Return the line that a copy holds itself; None if it holds none."""
    try:
        mirror = json.loads(read_plain_file(copy_dir / MARK, copy_dir, MOST_TEXT))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return None if form_fault(mirror, Mirror) else mirror


def format_place(path: Path, run_dir: Path) -> str:
    """Return how a place is written down: from the run's directory on, if it lies in it."""
    try:
        return str(path.resolve().relative_to(run_dir.resolve()))
    except ValueError:
        return str(path.resolve())
