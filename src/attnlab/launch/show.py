"""What is printed of runs that have ended."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from attnlab.callbacks.progress import format_seconds
from attnlab.launch.run import Outcome
from attnlab.run_record.result import RunResult


def line(outcome: Outcome, title: str, sweep_left: float | None, width: int = 80) -> str:
    """Return what became of a run of many, in a line or, where that is too wide, in two.

    `title` says which run it is, and `sweep_left` how many seconds the others take.
    """
    result = outcome.result
    which = f"{title}  {outcome.directory.name}"
    if result is None:
        return f"{which}  {outcome.status}: {outcome.note}"
    parts = [f"{result.headline} {result.metrics[result.headline]:.3f}"]
    if outcome.status == "skipped":
        parts.append(f"skipped: {outcome.note}")
    else:
        parts.append(f"{result.seconds:.1f} s")
        if outcome.pace is not None:
            parts.append(str(outcome.pace))
        if sweep_left:
            parts.append(f"about {format_seconds(sweep_left)} left")
    text = "  ".join(parts)
    indent = " " * (title.index("]") + 2) if title.startswith("[") else "  "
    return f"{which}  {text}" if len(which) + 2 + len(text) <= width else f"{which}\n{indent}{text}"


def counts(outcomes: Sequence[Outcome]) -> str:
    """Return how many runs ended how, in the order in which that came up."""
    count_by_status = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in count_by_status.items())


def metrics(result: RunResult) -> Table:
    """Return the table of a run's final metrics, a row for each split."""
    reported = result.headline.split("/", 1)[0]
    parts = (name.split("/", 1) for name in result.metrics)
    names = dict.fromkeys(name for split, name in parts if split == reported)
    metric_names = [name for name in names if "." not in name and "@" not in name]
    table = Table(box=None, pad_edge=False)
    for name in ("split", *metric_names):
        table.add_column(Text(name))
    splits = {name.split("/", 1)[0] for name in result.metrics if name.startswith("test_")}
    for split in dict.fromkeys(("validation", reported, *sorted(splits))):
        values = (result.metrics.get(f"{split}/{name}") for name in metric_names)
        table.add_row(split, *("-" if value is None else f"{value:.4f}" for value in values))
    return table
