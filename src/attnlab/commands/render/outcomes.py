"""What became of the runs of a sweep, in the terminal."""

from collections.abc import Sequence

from attnlab.console import Console
from attnlab.launch.outcome import Outcome
from attnlab.launch.show import count_statuses


def print_outcomes(
    outcomes: Sequence[Outcome], sweep: str, num_left_out: int, console: Console
) -> int:
    """Print how many runs of a sweep ended how, and why some did not; return the exit code."""
    left_out_suffix = f"; {num_left_out} left out" if num_left_out else ""
    console.print(
        f"{len(outcomes)} runs: {count_statuses(outcomes)}{left_out_suffix}; sweep {sweep}"
    )
    for outcome in outcomes:
        if not outcome.ok:
            cause = f" ({outcome.cause})" if outcome.cause else ""
            console.print(f"  {outcome.status}{cause}: {outcome.directory}: {outcome.note}")
    if not all(outcome.ok for outcome in outcomes):
        console.print(f"`attnlab sweep status {sweep}` shows all, `retry` tries these again")
    return 0 if all(outcome.ok for outcome in outcomes) else 1
