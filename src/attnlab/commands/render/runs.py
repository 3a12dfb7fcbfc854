"""Runs in the terminal: a list, the details of one, and what distinguishes two."""

import re
from collections.abc import Sequence
from shlex import quote
from typing import Any

from rich.table import Table

from attnlab.analysis.arms import describe_keys, enclosing_paths, format_value, is_class_path
from attnlab.analysis.run_details import DifferingValue, RunDetails, RunDiff, RunRow, RunsReport
from attnlab.console import Console
from attnlab.printable import one_line

LEAST_NAME = 28
"""The least width of the column of names."""
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def print_runs(report: RunsReport, console: Console) -> None:
    """Print a row for each run; at the end the number of runs by state."""
    metrics = list(dict.fromkeys(run.metric for run in report.runs if run.metric))
    header = ["state", metrics[0] if len(metrics) == 1 else "metric", "age", "size"]
    facts = [_facts(run, len(metrics) > 1) for run in report.runs]
    if not report.names_tell:
        header.append("differs in")
        facts = [
            [*row, describe_keys({"seed": run.seed, **run.keys})]
            for row, run in zip(facts, report.runs, strict=True)
        ]
    if any(run.tags for run in report.runs):
        header.append("tags")
        facts = [[*row, " ".join(run.tags)] for row, run in zip(facts, report.runs, strict=True)]
    widths = [max(map(len, column)) for column in zip(header, *facts, strict=True)]
    longest = max((len(run.run) for run in report.runs), default=0)
    fixed = sum(width + 2 for width in widths[:4])
    name_width = min(longest, max(LEAST_NAME, console.width - fixed - sum(widths[4:]) - 4))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", min_width=min(longest, LEAST_NAME), overflow="fold")
    for place, name in enumerate(header):
        is_number = place in (2, 3)
        table.add_column(
            name, justify="right" if is_number else "left", no_wrap=place < 4, overflow="fold"
        )
    for run, row in zip(report.runs, facts, strict=True):
        table.add_row(_broken(run.run, name_width), *row)
    console.print(table)
    for run in report.runs:
        if run.fault:
            console.print(f"{run.run}: {one_line(run.fault)}", soft_wrap=True)
    states = [run.state for run in report.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{len(states)} runs: {counts}; {format_size(sum(r.size for r in report.runs))}")


def print_details(report: RunDetails, console: Console) -> None:
    """Print what the record has on one run."""
    console.print(report.run, style="bold", soft_wrap=True)
    checkpoints = f"{format_size(report.checkpoint_size)} of them checkpoints"
    lines: list[tuple[str, str]] = [
        ("state", report.state + (" (archived)" if report.archived else "")),
        ("same command", report.next),
        ("directory", report.path),
        ("size", f"{format_size(report.size)}, {checkpoints}"),
        ("sweeps", " ".join(report.sweeps)),
        ("tags", " ".join(report.tags)),
        *(("note", f"{note.at}  {note.text}") for note in report.notes),
        ("trained by", _command(report)),
        ("commit", _commit(report)),
        ("versions", ", ".join(f"{k} {v}" for k, v in report.versions.items() if v)),
    ]
    _print_pairs([(name, text) for name, text in lines if text], console)
    for title, values in (
        ("metrics", report.metrics),
        ("data and cost", report.costs),
        ("config", report.config),
    ):
        if values:
            console.print(f"\n{title}", style="bold")
            _print_pairs([(key, _text(value)) for key, value in values.items()], console)
    if report.attempts:
        console.print("\nattempts", style="bold")
        _print_pairs(
            [
                (
                    str(attempt.number),
                    f"{attempt.began}  {attempt.end} at step {attempt.step}, process "
                    f"{attempt.pid} on {attempt.host}"
                    + (f": {attempt.error}" if attempt.error else ""),
                )
                for attempt in report.attempts
            ],
            console,
        )


def print_diff(report: RunDiff, console: Console) -> None:
    """Print in what two runs differ."""
    for letter, name in (("A", report.first), ("B", report.second)):
        console.print(f"{letter} = {name}", soft_wrap=True)
    sections: list[tuple[str, Sequence[DifferingValue]]] = [
        ("config", _without_implied(report.config)),
        ("metrics", report.metrics),
        ("data and cost", report.costs),
        ("environment", report.environment),
    ]
    for title, pairs in sections:
        if not pairs:
            continue
        console.print()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in (title, "A", "B"):
            table.add_column(name, overflow="fold")
        for pair in pairs:
            table.add_row(pair.key, _text(pair.first), _text(pair.second))
        console.print(table)
    if not any(pairs for _, pairs in sections):
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


def _facts(run: RunRow, with_metric_name: bool) -> list[str]:
    state = run.state
    if state != "finished" and run.max_steps and run.step:
        state += f" {run.step / run.max_steps:.0%}"
    value = "" if run.value is None else f"{run.value:.4g}"
    if with_metric_name and value:
        value = f"{run.metric} {value}"
    archived = " (archived)" if run.archived else ""
    return [state + archived, value, _format_age(run.age), format_size(run.size)]


def _format_age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    factor, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / factor:.0f} {unit}"


def _broken(name: str, width: int) -> str:
    """Return a run's name on as many lines as it needs, broken after its words."""
    lines = [""]
    # The sign of an exponent, as in lr1e-3, is no end of a word.
    for word in re.split(r"(?<=-)(?<!\de-)", name):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def _command(report: RunDetails) -> str:
    if not report.overrides:
        return ""
    config_dir = [f"--config-dir {report.config_dir}"] if report.config_dir else []
    return " ".join(["attnlab train", *config_dir, *map(quote, report.overrides)])


def _commit(report: RunDetails) -> str:
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


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)
