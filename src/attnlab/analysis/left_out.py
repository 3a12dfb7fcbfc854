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
        f"{run.run} ({one_line(run.reason or '')})" for run in left_out if run.state == "damaged"
    ]
    unfinished_texts = [
        f"{run.run} ({run.state})"
        for run in left_out
        if run.state not in ("failed", "damaged", "finished")
    ]
    run_texts_by_state = {
        "not finished": unfinished_texts,
        "failed": failed_names,
        "damaged": damaged_texts,
    }
    return "; ".join(
        f"{len(run_texts)} {state}: {', '.join(run_texts)}"
        for state, run_texts in run_texts_by_state.items()
        if run_texts
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
    all_names = list(names)
    if len(all_names) > most:
        all_names[most:] = [f"{len(all_names) - most} more"]
    return ", ".join(all_names)
