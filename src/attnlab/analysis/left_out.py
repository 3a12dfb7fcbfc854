"""Requested runs that are left out of an answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnlab.printable import one_line


@dataclass(frozen=True)
class LeftOut:
    """A requested run that is left out."""

    run: str
    """The name of the run."""
    state: str
    """The state of its record; "damaged" where it cannot be read."""
    reason: str | None = None
    """The reason; None where the state explains it."""


def by_state(left_out: Sequence[LeftOut]) -> str:
    """Return a text that counts and lists the runs without a result, by their states."""
    failed_names = [run.run for run in left_out if run.state == "failed"]
    damaged_texts = [
        f"{r.run} ({one_line(r.reason or '')})" for r in left_out if r.state == "damaged"
    ]
    other_texts = [f"{r.run} ({r.state})" for r in left_out if r.state not in ("failed", "damaged")]
    texts_by_state = [
        (other_texts, "not finished"),
        (failed_names, "failed"),
        (damaged_texts, "damaged"),
    ]
    return "; ".join(
        f"{len(texts)} {state_text}: {', '.join(texts)}"
        for texts, state_text in texts_by_state
        if texts
    )
