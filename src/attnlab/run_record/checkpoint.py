"""The newest checkpoint of a run that is undamaged."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from attnlab.errors import RecordError
from attnlab.run_record.attempt import CHECKPOINTS_KEPT
from attnlab.run_record.forms import Saved
from attnlab.run_record.read import read_plain_file
from attnlab.run_record.record import Record, attempt_numbers, read_manifest

MOST_BYTES = 1 << 38
"""Largest size of a checkpoint in bytes; its exact size is in the manifest."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, which a later change of its file does not affect."""

    attempt: int
    step: int
    sha256: str
    content: bytes = field(repr=False)


class _ListedCheckpoint(NamedTuple):
    """A checkpoint that a manifest lists."""

    step: int
    attempt: int
    path: Path
    entry: Saved
    is_kept: bool
    """Whether its attempt has not deleted it since."""


def newest_checkpoint(run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint of the highest step (of the latest attempt) that fits its manifest.

    Returns also a sentence for each damaged file that was passed over. Older files that an attempt
    deleted do not count as damaged.
    """
    damage_reports: list[str] = []
    for listed_checkpoint in _list_checkpoints(run_dir, damage_reports):
        path, entry = listed_checkpoint.path, listed_checkpoint.entry
        try:
            content = read_plain_file(path, run_dir, MOST_BYTES, exact_bytes=entry["size"])
        except FileNotFoundError:
            if listed_checkpoint.is_kept:
                damage_reports.append(f"{path} is missing; passed over")
            continue
        except RecordError as error:
            damage_reports.append(f"{error}; passed over")
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 == entry["sha256"]:
            return Checkpoint(
                listed_checkpoint.attempt, listed_checkpoint.step, sha256, content
            ), damage_reports
        damage_reports.append(f"{path} does not have the SHA-256 of its manifest; passed over")
    return None, damage_reports


def _list_checkpoints(run_dir: Path, damage_reports: list[str]) -> list[_ListedCheckpoint]:
    """List the checkpoints of all manifests of a run, the highest step first.

    Adds a sentence for each damaged line of a manifest to `damage_reports`.
    """
    checkpoints = []
    for number in attempt_numbers(run_dir):
        attempt_dir = run_dir / "attempts" / str(number)
        entries = read_manifest(attempt_dir, damage_reports)
        for position, entry in enumerate(entries, start=1):
            is_kept = position > len(entries) - CHECKPOINTS_KEPT
            path = attempt_dir / "checkpoints" / entry["file"]
            checkpoints.append(_ListedCheckpoint(entry["step"], number, path, entry, is_kept))
    return sorted(
        checkpoints, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt), reverse=True
    )


def last_checkpoint(record: Record) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint that represents a run, with the sentences of `newest_checkpoint`.

    Raises RecordError if there is none, or if that of a finished run is not of its last step: an
    earlier checkpoint would be taken for what the run has learned.
    """
    checkpoint, damage_reports = newest_checkpoint(record.path)
    if checkpoint is None:
        reason = "; ".join(damage_reports) or f"it is {record.state}"
        raise RecordError(f"{record.name} has no checkpoint that can be loaded: {reason}")
    result = record.result
    if result is not None and checkpoint.step < result.steps:
        reason = "; ".join(damage_reports) or "later ones are gone"
        raise RecordError(
            f"{record.name} was trained for {result.steps} steps, and its newest sound "
            f"checkpoint is of step {checkpoint.step} ({reason}); train it again with rerun=true"
        )
    return checkpoint, damage_reports
