"""The newest checkpoint of a run that is what it was when it was written."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from attnlab.errors import RecordError
from attnlab.run_record.attempt import KEPT
from attnlab.run_record.read import content
from attnlab.run_record.record import Record, attempt_numbers, manifest

MOST_BYTES = 1 << 38
"""Of a checkpoint; how many it has is known from its manifest."""


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
        attempt = run_dir / "attempts" / str(number)
        listed = manifest(attempt, damaged)
        for place, entry in enumerate(listed, start=1):
            kept = place > len(listed) - KEPT
            path = attempt / "checkpoints" / entry["file"]
            entries.append((entry["step"], number, path, entry, kept))
    for step, number, path, entry, kept in sorted(entries, key=lambda e: e[:2], reverse=True):
        try:
            stored = content(path, run_dir, MOST_BYTES, exactly=entry["size"])
        except FileNotFoundError:
            if kept:
                damaged.append(f"{path} is missing; passed over")
            continue
        except RecordError as error:
            damaged.append(f"{error}; passed over")
            continue
        sha256 = hashlib.sha256(stored).hexdigest()
        if sha256 != entry["sha256"]:
            damaged.append(f"{path} does not have the SHA-256 of its manifest; passed over")
        else:
            return Checkpoint(number, step, sha256, stored), damaged
    return None, damaged


def last_checkpoint(record: Record) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint that speaks for a run, with the sentences of `newest_checkpoint`.

    Raises RecordError where there is none, and where that of a finished run is not of its last
    step: what an earlier one says would pass for what the run has learned.
    """
    checkpoint, damaged = newest_checkpoint(record.path)
    if checkpoint is None:
        reason = "; ".join(damaged) or f"it is {record.state}"
        raise RecordError(f"{record.name} has no checkpoint that can be loaded: {reason}")
    result = record.result
    if result is not None and checkpoint.step < result.steps:
        reason = "; ".join(damaged) or "later ones are gone"
        raise RecordError(
            f"{record.name} was trained for {result.steps} steps, and its newest sound "
            f"checkpoint is of step {checkpoint.step} ({reason}); train it again with rerun=true"
        )
    return checkpoint, damaged
