"""What would be trained, as text."""

from collections.abc import Mapping, Sequence

from attnlab.analysis.report import align_rows
from attnlab.analysis.table import format_count
from attnlab.launch.dry_run import DryRun, PlannedRun


def dry_run_text(report: DryRun) -> str:
    """Return a table with two lines for each run: what it costs and where it would be recorded."""
    header = ("parameters", "FLOPs/token", "tokens", "time", "")
    rows = [header, *map(_cells, report.runs)]
    first, *lines = align_rows(rows)
    text = [first]
    for run, line in zip(report.runs, lines, strict=True):
        text += [line, f"  {run.name}"]
    if report.impossible:
        text += ["", left_out_text(report.impossible)]
    num_left = sum(run.steps > 0 for run in report.runs)
    at_once = f", {report.jobs} at once" if report.jobs > 1 else ""
    known_seconds = sum(run.seconds or 0.0 for run in report.runs) / report.jobs
    at_least = "at least " if report.seconds is None else ""
    total = f"{at_least}about {duration(known_seconds)}"
    text += [
        "",
        f"{_runs(len(report.runs))}, {num_left} to train{at_once}: {total}",
        "time: a few real steps, measured here, and validations; start, evidence and recording "
        "come on top",
    ]
    if report.seconds is None:
        text.append("-: not measured, as the others took all the time that is for measuring")
    return "\n".join(text)


def left_out_text(impossible: Mapping[str, Sequence[str]]) -> str:
    """Return why runs of a sweep are left out, and which."""
    num_runs = len({label for labels in impossible.values() for label in labels})
    lines = [f"left out, as the parts do not fit together ({_runs(num_runs)}):"]
    for fault, labels in impossible.items():
        lines += [f"  {fault}", *(f"    {label}" for label in labels)]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time in the unit that a reader expects."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


def _runs(number: int) -> str:
    return f"{number} run" if number == 1 else f"{number} runs"


def _cells(run: PlannedRun) -> tuple[str, ...]:
    time = "-" if run.seconds is None else duration(run.seconds) if run.steps else ""
    state = f"{run.state}: {run.note}" if run.note else run.state
    return (
        format_count(run.parameters),
        format_count(run.flops_per_token),
        format_count(run.tokens),
        time,
        "  ".join(part for part in (state, run.differs) if part),
    )
