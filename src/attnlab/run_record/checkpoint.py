"""The newest checkpoint of a run that is undamaged."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from attnlab.errors import RecordError
from attnlab.run_record.attempt import KEPT
from attnlab.run_record.read import content
from attnlab.run_record.record import Record, attempt_numbers, manifest

MOST_BYTES = 1 << 38
"""Largest size of a checkpoint in bytes; its exact size is in the manifest."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, which a later change of its file does not affect."""

    attempt: int
    step: int
    sha256: str
    content: bytes = field(repr=False)


def newest_checkpoint(run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint of the highest step (of the latest attempt) that fits its manifest.

    Returns also a sentence for each damaged file that was passed over. Older files that an attempt
    deleted do not count as damaged.
    """
    damaged: list[str] = []
    entries = []
    for number in attempt_numbers(run_dir):
        attempt = run_dir / "attempts" / str(number)
        saved = manifest(attempt, damaged)
        for position, entry in enumerate(saved, start=1):
            is_expected = position > len(saved) - KEPT
            path = attempt / "checkpoints" / entry["file"]
            entries.append((entry["step"], number, path, entry, is_expected))
    for step, number, path, entry, is_expected in sorted(
        entries, key=lambda e: e[:2], reverse=True
    ):
        try:
            file_content = content(path, run_dir, MOST_BYTES, exactly=entry["size"])
        except FileNotFoundError:
            if is_expected:
                damaged.append(f"{path} is missing; passed over")
            continue
        except RecordError as error:
            damaged.append(f"{error}; passed over")
            continue
        sha256 = hashlib.sha256(file_content).hexdigest()
        if sha256 != entry["sha256"]:
            damaged.append(f"{path} does not have the SHA-256 of its manifest; passed over")
        else:
            return Checkpoint(number, step, sha256, file_content), damaged
    return None, damaged


def last_checkpoint(record: Record) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint that represents a run, with the sentences of `newest_checkpoint`.

    Raises RecordError if there is none, or if that of a finished run is not of its last step: an
    earlier checkpoint would be taken for what the run has learned.
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
