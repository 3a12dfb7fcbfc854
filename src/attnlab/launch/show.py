"""What is printed of runs that have ended."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from attnlab.launch.run import Outcome


def line(outcome: Outcome) -> str:
    """Return one line on a run of many."""
    summary = outcome.summary
    if not outcome.ok:
        return f"{outcome.directory.name}  {outcome.status}: {outcome.note}"
    headline = summary["headline"]
    text = f"{outcome.directory.name}  {headline} {summary['metrics'][headline]:.3f}"
    if outcome.status == "skipped":
        return f"{text}  skipped: {outcome.note}"
    return f"{text}  {summary['seconds']:.1f} s"


def counts(outcomes: Sequence[Outcome]) -> str:
    """Return how many runs ended how, in the order in which that came up."""
    count_by_status = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in count_by_status.items())


def metrics(outcome: Outcome) -> Table:
    """Return the table of a run's final metrics, a row for each split."""
    summary: Any = outcome.summary
    reported = summary["headline"].split("/", 1)[0]
    parts = (name.split("/", 1) for name in summary["metrics"])
    names = dict.fromkeys(name for split, name in parts if split == reported)
    metric_names = [name for name in names if "." not in name and "@" not in name]
    table = Table(box=None, pad_edge=False)
    for name in ("split", *metric_names):
        table.add_column(Text(name))
    splits = {name.split("/", 1)[0] for name in summary["metrics"] if name.startswith("test_")}
    for split in dict.fromkeys(("validation", reported, *sorted(splits))):
        values = (summary["metrics"].get(f"{split}/{name}") for name in metric_names)
        table.add_row(split, *("-" if value is None else f"{value:.4f}" for value in values))
    return table
