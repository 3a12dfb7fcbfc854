"""Runs in the terminal: a list, the details of one, and what distinguishes two."""

import re
from collections.abc import Sequence
from shlex import quote
from typing import Any

from rich.table import Table

from attnlab.analysis.arms import describe_keys, enclosing_paths, format_value, is_class_path
from attnlab.analysis.run_details import (
    AttemptDetails,
    DifferingValue,
    RunDetails,
    RunDiff,
    RunRow,
    RunsReport,
)
from attnlab.analysis.table import approximate_duration
from attnlab.console import Console
from attnlab.printable import one_line
from attnlab.run_record.record import hash_in_name

LEAST_NAME = 28
"""The least width of the column of names."""
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def print_runs(report: RunsReport, console: Console) -> None:
    """Print a row for each run; at the end the number of runs by state."""
    console.print(_runs_table(report, console.width))
    for run in report.runs:
        if run.fault:
            console.print(f"{run.run}: {one_line(run.fault)}", soft_wrap=True)
    states = [run.state for run in report.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    total_size = format_size(sum(run.size for run in report.runs))
    training_times = [run.seconds for run in report.runs if run.seconds is not None]
    time_text = (
        f"; {approximate_duration(sum(training_times))} of training" if training_times else ""
    )
    console.print(f"{len(states)} runs: {counts}; {total_size}{time_text}")


def _runs_table(report: RunsReport, width: int) -> Table:
    """Build the table of runs, whose names are broken so that the rest fits into the width."""
    metrics = list(dict.fromkeys(run.metric for run in report.runs if run.metric))
    columns = {
        "state": [_state_text(run) for run in report.runs],
        metrics[0] if len(metrics) == 1 else "metric": [
            _metric_text(run, with_name=len(metrics) > 1) for run in report.runs
        ],
        "age": [_format_age(run.age) for run in report.runs],
        "size": [format_size(run.size) for run in report.runs],
    }
    unbroken_columns = tuple(columns)
    if not report.has_distinct_names:
        columns["differs in"] = [
            describe_keys({"seed": run.seed, **run.keys}) for run in report.runs
        ]
    if any(run.tags for run in report.runs):
        columns["tags"] = [" ".join(run.tags) for run in report.runs]
    width_by_header = {h: max(map(len, (h, *texts))) for h, texts in columns.items()}
    unbroken_width = sum(width_by_header[header] + 2 for header in unbroken_columns)
    breakable_width = sum(w for h, w in width_by_header.items() if h not in unbroken_columns)
    names = [run.run for run in report.runs]
    room = max(LEAST_NAME, width - unbroken_width - breakable_width - 4)
    if max(map(len, names), default=0) > room and report.has_distinct_names:
        # A name without its hash names the run too, and fits on more screens.
        names = [name.removesuffix(f"-{hash_in_name(name)}") for name in names]
    longest_name = max(map(len, names), default=0)
    name_width = min(longest_name, room)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", min_width=min(longest_name, LEAST_NAME), overflow="fold")
    for header in columns:
        justify = "right" if header in ("age", "size") else "left"
        no_wrap = header in unbroken_columns
        table.add_column(header, justify=justify, no_wrap=no_wrap, overflow="fold")
    for name, *texts in zip(names, *columns.values(), strict=True):
        table.add_row(_break_name(name, name_width), *texts)
    return table


def print_details(report: RunDetails, console: Console) -> None:
    """Print what the record has on one run."""
    console.print(report.run, style="bold", soft_wrap=True)
    checkpoints = f"{format_size(report.checkpoint_size)} of them checkpoints"
    pairs: list[tuple[str, str]] = [
        ("state", report.state + (" (archived)" if report.archived else "")),
        ("same command", report.next),
        ("directory", report.path),
        ("size", f"{format_size(report.size)}, {checkpoints}"),
        ("sweeps", " ".join(report.sweeps)),
        ("tags", " ".join(report.tags)),
        *(("note", f"{note.at}  {note.text}") for note in report.notes),
        ("trained by", _train_command(report)),
        ("commit", _commit_text(report)),
        ("versions", ", ".join(f"{k} {v}" for k, v in report.versions.items() if v)),
    ]
    _print_pairs([(name, text) for name, text in pairs if text], console)
    for title, values in (
        ("metrics", report.metrics),
        ("data and cost", report.costs),
        ("config", report.config),
    ):
        if values:
            console.print(f"\n{title}", style="bold")
            _print_pairs([(key, _value_text(value)) for key, value in values.items()], console)
    if report.attempts:
        console.print("\nattempts", style="bold")
        _print_pairs([_attempt_pair(attempt) for attempt in report.attempts], console)


def print_diff(report: RunDiff, console: Console) -> None:
    """Print in what two runs differ."""
    for letter, run in (("A", report.first), ("B", report.second)):
        console.print(f"{letter} = {run}", soft_wrap=True)
    sections: list[tuple[str, Sequence[DifferingValue]]] = [
        ("config", _without_implied(report.config)),
        ("metrics", report.metrics),
        ("data and cost", report.costs),
        ("environment", report.environment),
    ]
    for title, differences in sections:
        if not differences:
            continue
        console.print()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for header in (title, "A", "B"):
            table.add_column(header, overflow="fold")
        for difference in differences:
            table.add_row(
                difference.key, _value_text(difference.first), _value_text(difference.second)
            )
        console.print(table)
    if not any(differences for _, differences in sections):
        console.print("they differ in nothing")


def _without_implied(pairs: Sequence[DifferingValue]) -> list[DifferingValue]:
    """Return the differences without the knobs of components of different classes."""
    components = {p.key for p in pairs if is_class_path(p.first) or is_class_path(p.second)}
    return [
        pair for pair in pairs if not any(path in components for path in enclosing_paths(pair.key))
    ]


def format_size(count: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def _state_text(run: RunRow) -> str:
    """Return the state of a run, with its progress where it is not finished."""
    progress = ""
    if run.state != "finished" and run.max_steps and run.step:
        progress = f" {run.step / run.max_steps:.0%}"
    return f"{run.state}{progress}{' (archived)' if run.archived else ''}"


def _metric_text(run: RunRow, *, with_name: bool) -> str:
    if run.value is None:
        return ""
    return f"{run.metric} {run.value:.4g}" if with_name else f"{run.value:.4g}"


def _format_age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    factor, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / factor:.0f} {unit}"


def _break_name(name: str, width: int) -> str:
    """Return a run's name on as many lines as it needs, broken after its words."""
    lines = [""]
    # The sign of an exponent, as in lr1e-3, is no end of a word.
    for word in re.split(r"(?<=-)(?<!\de-)", name):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def _attempt_pair(attempt: AttemptDetails) -> tuple[str, str]:
    """Return the number of an attempt, and how it went."""
    error = f": {attempt.error}" if attempt.error else ""
    return (
        str(attempt.number),
        f"{attempt.began}  {attempt.end} at step {attempt.step}, process {attempt.pid} on "
        f"{attempt.host}{error}",
    )


def _train_command(report: RunDetails) -> str:
    if not report.overrides:
        return ""
    config_dir = [f"--config-dir {report.config_dir}"] if report.config_dir else []
    return " ".join(["attnlab train", *config_dir, *map(quote, report.overrides)])


def _commit_text(report: RunDetails) -> str:
    if not report.git:
        return ""
    dirty = " with changes" if report.git.get("dirty") else ""
    return f"{report.git.get('commit')}{dirty}"


def _print_pairs(pairs: Sequence[tuple[str, str]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(name, one_line(text))
    console.print(table)


def _value_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)
