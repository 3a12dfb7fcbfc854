"""Requested runs that are left out of an answer."""

from collections.abc import Iterable, Sequence
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


def describe_by_state(left_out: Sequence[LeftOut]) -> str:
    """Return a text that counts and lists the runs without a usable result, by their states."""
    failed_names = [run.run for run in left_out if run.state == "failed"]
    damaged_texts = [
        f"{r.run} ({one_line(r.reason or '')})" for r in left_out if r.state == "damaged"
    ]
    other_texts = [
        f"{r.run} ({r.state})" for r in left_out if r.state not in ("failed", "damaged", "finished")
    ]
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


def describe_by_reason(left_out: Sequence[LeftOut]) -> list[str]:
    """Return a line for each reason why finished runs are left out, with the runs."""
    names_by_reason: dict[str, list[str]] = {}
    for run in left_out:
        if run.state == "finished":
            names_by_reason.setdefault(one_line(run.reason or ""), []).append(run.run)
    return [f"{abbreviate_names(names)}: {reason}" for reason, names in names_by_reason.items()]


def abbreviate_names(names: Iterable[str], most: int = 4) -> str:
    """Return the names joined by commas; beyond `most`, only the number of the others."""
    listed = list(names)
    rest = [f"{len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *rest])
