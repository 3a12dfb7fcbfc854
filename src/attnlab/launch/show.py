"""What is printed of runs that have ended."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from attnlab.launch.run import Outcome
from attnlab.run_record.result import RunResult


def line(outcome: Outcome) -> str:
    """Return one line on a run of many."""
    result = outcome.result
    if result is None:
        return f"{outcome.directory.name}  {outcome.status}: {outcome.note}"
    headline = result.headline
    text = f"{outcome.directory.name}  {headline} {result.metrics[headline]:.3f}"
    if outcome.status == "skipped":
        return f"{text}  skipped: {outcome.note}"
    return f"{text}  {result.seconds:.1f} s"


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
