"""The newest checkpoint of a run that is what it was when it was written."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnlab.runs.attempt import KEPT
from attnlab.runs.record import attempt_numbers


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, so that what happens to its file no longer matters."""

    attempt: int
    step: int
    sha256: str
    content: bytes = field(repr=False)


def newest_checkpoint(run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the highest step of any attempt, the latest of equals, whose file fits its manifest.

    Gives a sentence for each damaged file that was passed over; that an attempt deleted all but
    its newest is no damage.
    """
    damaged: list[str] = []
    entries = []
    for number in attempt_numbers(run_dir):
        directory = run_dir / "attempts" / str(number) / "checkpoints"
        listed = _manifest(directory / "manifest.jsonl", damaged)
        for place, entry in enumerate(listed, start=1):
            kept = place > len(listed) - KEPT
            entries.append((entry["step"], number, directory / entry["file"], entry, kept))
    for step, number, path, entry, kept in sorted(entries, key=lambda e: e[:2], reverse=True):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if kept:
                damaged.append(f"{path} is missing; passed over")
            continue
        except OSError as error:
            damaged.append(f"{path} cannot be read ({error.strerror}); passed over")
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if len(content) != entry["size"]:
            damaged.append(f"{path} has {len(content)} bytes, not {entry['size']}; passed over")
        elif sha256 != entry["sha256"]:
            damaged.append(f"{path} does not have the SHA-256 of its manifest; passed over")
        else:
            return Checkpoint(number, step, sha256, content), damaged
    return None, damaged


def _manifest(path: Path, damaged: list[str]) -> list[dict[str, Any]]:
    """Read the lines that can be read; the others add to `damaged`."""
    if not path.exists():
        return []
    entries = []
    # What follows the last line feed is the torn end of a killed write.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            _ = entry["step"] + entry["size"], Path(entry["file"]), str(entry["sha256"])
            entries.append(entry)
        except (ValueError, TypeError, LookupError):
            damaged.append(f"{path} is damaged in line {number}; its checkpoint is passed over")
    return entries
