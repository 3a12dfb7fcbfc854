"""What is printed of runs that have ended."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from attnlab.callbacks.progress import SECONDS_BETWEEN_LINES, format_seconds
from attnlab.config import Config
from attnlab.launch.outcome import Outcome
from attnlab.run_record.result import RunResult


def start_lines(configs: Sequence[Config], jobs: int) -> str:
    """Return how many runs there are, how many are trained at once, and where one can follow."""
    runs_dir = configs[0].values["runs_dir"]
    return (
        f"{len(configs)} runs, {min(jobs, len(configs))} at a time; each prints a line at a "
        f"validation, every {SECONDS_BETWEEN_LINES:.0f} s at most\n"
        f"rows and logs are in {runs_dir}/RUN/attempts; `attnlab runs {runs_dir}` lists the steps"
    )


def outcome_line(outcome: Outcome, title: str, sweep_left: float | None, width: int = 80) -> str:
    """Return what became of a run of many, in a line or, where that is too wide, in two.

    `title` says which run it is, and `sweep_left` how many seconds the others take.
    """
    result = outcome.result
    run_label = f"{title}  {outcome.directory.name}"
    if result is None:
        return f"{run_label}  {outcome.status}: {outcome.note}"
    phrases = [f"{result.headline} {result.metrics[result.headline]:.3f}"]
    if outcome.status == "skipped":
        phrases.append(f"skipped: {outcome.note}")
    else:
        phrases.append(f"{result.seconds:.1f} s")
        if outcome.pace is not None:
            phrases.append(str(outcome.pace))
        if sweep_left:
            phrases.append(f"about {format_seconds(sweep_left)} left")
    description = "  ".join(phrases)
    if len(run_label) + 2 + len(description) <= width:
        return f"{run_label}  {description}"
    indent = " " * (title.index("]") + 2) if title.startswith("[") else "  "
    return f"{run_label}\n{indent}{description}"


def count_statuses(outcomes: Sequence[Outcome]) -> str:
    """Return how many runs ended how, in the order in which that came up."""
    count_by_status = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in count_by_status.items())


def metrics_table(result: RunResult) -> Table:
    """Return the table of a run's final metrics, a row for each split."""
    headline_split = result.headline.split("/", 1)[0]
    splits_and_metrics = [key.split("/", 1) for key in result.metrics]
    metrics = [
        metric
        for split, metric in splits_and_metrics
        if split == headline_split and "." not in metric and "@" not in metric
    ]
    table = Table(box=None, pad_edge=False)
    for heading in ("split", *metrics):
        table.add_column(Text(heading))
    further_splits = {split for split, _ in splits_and_metrics if split.startswith("test_")}
    for split in dict.fromkeys(("validation", headline_split, *sorted(further_splits))):
        values = (result.metrics.get(f"{split}/{metric}") for metric in metrics)
        table.add_row(split, *("-" if value is None else f"{value:.4f}" for value in values))
    return table
