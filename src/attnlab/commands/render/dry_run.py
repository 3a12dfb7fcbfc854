"""What would be trained, as text."""

from collections.abc import Mapping, Sequence

from attnlab.analysis.report import align_rows
from attnlab.analysis.table import approximate_duration, format_count
from attnlab.launch.dry_run import DryRun, PlannedRun


def dry_run_text(report: DryRun) -> str:
    """Return a table with two lines for each run: what it costs and where it would be recorded."""
    header = ("parameters", "FLOPs/token", "tokens", "time", "")
    header_line, *run_lines = align_rows([header, *map(_cells, report.runs)])
    lines = [header_line]
    for run, run_line in zip(report.runs, run_lines, strict=True):
        lines += [run_line, f"  {run.name}"]
    if report.impossible:
        lines += ["", left_out_text(report.impossible)]
    num_to_train = sum(run.steps > 0 for run in report.runs)
    jobs_text = f", {report.jobs} at once" if report.jobs > 1 else ""
    known_seconds = sum(run.seconds or 0.0 for run in report.runs) / report.jobs
    at_least = "at least " if report.seconds is None else ""
    total_time = f"{at_least}about {approximate_duration(known_seconds)}"
    lines += [
        "",
        f"{_count_text(len(report.runs))}, {num_to_train} to train{jobs_text}: {total_time}",
        "time: a few real steps, measured here, and validations; start, evidence and recording "
        "come on top",
    ]
    if report.seconds is None:
        lines.append("-: not measured, as the others took all the time that is for measuring")
    return "\n".join(lines)


def left_out_text(impossible: Mapping[str, Sequence[str]]) -> str:
    """Return why runs of a sweep are left out, and which."""
    num_runs = len({label for labels in impossible.values() for label in labels})
    lines = [f"left out, as the parts do not fit together ({_count_text(num_runs)}):"]
    for fault, labels in impossible.items():
        lines += [f"  {fault}", *(f"    {label}" for label in labels)]
    return "\n".join(lines)


def _count_text(num_runs: int) -> str:
    return f"{num_runs} run" if num_runs == 1 else f"{num_runs} runs"


def _cells(run: PlannedRun) -> tuple[str, ...]:
    """Return the texts of a run's row: its costs, its time if it is to train, and its state."""
    time_text = ""
    if run.seconds is None:
        time_text = "-"
    elif run.steps:
        time_text = approximate_duration(run.seconds)
    state_text = f"{run.state}: {run.note}" if run.note else run.state
    return (
        format_count(run.parameters),
        format_count(run.flops_per_token),
        format_count(run.tokens),
        time_text,
        "  ".join(text for text in (state_text, run.differs) if text),
    )
