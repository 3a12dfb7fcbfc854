"""What became of a run that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attnlab.run_record.result import RunResult

if TYPE_CHECKING:
    from attnlab.callbacks.progress import Pace

Cause = Literal["killed", "hung", "memory", "disk", "logger", "error", "diverged"]
"""Why a run failed: its process was killed, or stood still; or what its own code raised."""


@dataclass
class Outcome:
    """What became of a run.

    It is finished; skipped, as it was finished before; refused, as it would fail again; failed;
    interrupted; held by another process; dead, as its process had died before; or blocked by a
    record that cannot be used.
    """

    directory: Path
    status: str
    result: RunResult | None = None
    """Of a run that is finished, now or before."""
    note: str = ""
    notes: Sequence[str] = ()
    """What a reader of its result must know, as how much of its data was left out."""
    pace: "Pace | None" = None
    """How fast it was trained here."""
    cause: str | None = None
    """Why it failed, one of `Cause`; None where it did not."""

    @property
    def ok(self) -> bool:
        return self.status in ("finished", "skipped")
