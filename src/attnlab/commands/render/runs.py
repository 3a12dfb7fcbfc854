"""Runs in the terminal: a list, the details of one, and what distinguishes two."""

import re
from collections.abc import Mapping, Sequence
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
from attnlab.analysis.units import format_age, format_duration, format_size
from attnlab.console import Console
from attnlab.printable import break_lines, indent_after_name, one_line
from attnlab.run_record.record import hash_in_name

LEAST_NAME, LEAST_TAGS = 28, 12
"""The least widths of the column of names, and of those of `BREAKABLE`."""
BREAKABLE = ("differs in", "tags")
"""The columns whose texts are broken where there is no room for them."""
GAP = 2
"""The number of spaces between columns."""


def print_runs(report: RunsReport, console: Console) -> None:
    """Print a row for each run; at the end the number of runs by state."""
    console.print(_runs_table(report, console.width))
    for run in report.runs:
        if run.fault:
            console.print(f"{run.run}: {one_line(run.fault)}", soft_wrap=True)
    states = [run.state for run in report.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    total_size = format_size(sum(run.size or 0 for run in report.runs))
    training_times = [run.seconds for run in report.runs if run.seconds is not None]
    time_text = f"; {format_duration(sum(training_times))} of training" if training_times else ""
    console.print(f"{len(states)} runs: {counts}; {total_size}{time_text}")


def _runs_table(report: RunsReport, width: int) -> Table:
    """Build the table of runs in the first layout that fits into the width, else in the last.

    A run's name without its hash names it too. The state of all runs stands below the table.
    """
    names = [run.run for run in report.runs]
    columns = _columns_beside_names(report)
    layouts = [(names, columns, 2)]
    if report.has_distinct_names:
        names = [name.removesuffix(f"-{hash_in_name(name)}") for name in names]
        layouts += [(names, columns, 2), (names, columns, 1)]
    if len(set(columns["state"])) == 1:
        columns = {header: texts for header, texts in columns.items() if header != "state"}
    layouts.append((names, columns, 1))
    fitting_layouts = (layout for layout in layouts if _layout_width(*layout) <= width)
    names, columns, gap = next(fitting_layouts, layouts[-1])
    breakable_headers = [header for header in BREAKABLE if header in columns]
    unbroken_columns = {h: texts for h, texts in columns.items() if h not in breakable_headers}
    room = width - _layout_width([""], unbroken_columns, gap)
    name_width = min(max(map(len, ("run", *names))), max(LEAST_NAME, room))
    room = max(LEAST_TAGS, (room - name_width) // max(len(breakable_headers), 1) - gap)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column("run", no_wrap=True)
    for header in columns:
        table.add_column(
            header, justify="right" if header in ("age", "size") else "left", no_wrap=True
        )
        if header in breakable_headers:
            columns[header] = [break_lines(text, room) for text in columns[header]]
    for name, *texts in zip(names, *columns.values(), strict=True):
        table.add_row(_break_name(name, name_width), *texts)
    return table


def _columns_beside_names(report: RunsReport) -> dict[str, list[str]]:
    """Return the columns of the table of runs, without the names, by their headers."""
    metrics = list(dict.fromkeys(run.metric for run in report.runs if run.metric))
    columns = {
        "state": [_state_text(run) for run in report.runs],
        metrics[0] if len(metrics) == 1 else "metric": [
            _metric_text(run, with_name=len(metrics) > 1) for run in report.runs
        ],
        "age": [format_age(run.age) for run in report.runs],
        "size": [format_size(run.size or 0) for run in report.runs],
    }
    if not report.has_distinct_names:
        columns["differs in"] = [
            describe_keys({"seed": run.seed, **run.keys}) for run in report.runs
        ]
    if any(run.tags for run in report.runs):
        columns["tags"] = [" ".join(run.tags) for run in report.runs]
    return columns


def _layout_width(names: Sequence[str], columns: Mapping[str, Sequence[str]], gap: int) -> int:
    """Return the width of a table of names and columns with `gap` spaces between."""
    widths = [max(map(len, (header, *texts))) for header, texts in columns.items()]
    return max(map(len, ("run", *names))) + sum(width + gap for width in widths)


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
        if differences:
            console.print()
            _print_differences(title, differences, console)
    if not any(differences for _, differences in sections):
        console.print("they differ in nothing")


def _print_differences(title: str, differences: Sequence[DifferingValue], console: Console) -> None:
    """Print a table of differing values; values too wide for it are printed below each other."""
    rows = [(pair.key, _value_text(pair.first), _value_text(pair.second)) for pair in differences]
    room = console.width - max(map(len, (title, *(key for key, _, _ in rows)))) - 2 * GAP
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for header in (title, "A", "B"):
        table.add_column(header, no_wrap=True)
    wide_rows = [row for row in rows if 2 * max(map(len, row[1:])) > room]
    for row in rows:
        if row not in wide_rows:
            table.add_row(*row)
    if len(wide_rows) < len(rows):
        console.print(table)
    else:
        console.print(title, style="bold")
    for key, *texts in wide_rows:
        console.print(key)
        for letter, text in zip("AB", texts, strict=True):
            console.print(f"  {letter} = {text}")


def _without_implied(pairs: Sequence[DifferingValue]) -> list[DifferingValue]:
    """Return the differences without the knobs of components of different classes."""
    components = {p.key for p in pairs if is_class_path(p.first) or is_class_path(p.second)}
    return [
        pair for pair in pairs if not any(path in components for path in enclosing_paths(pair.key))
    ]


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
    """Print names and what belongs to each, beside the name where its words have room there."""
    name_width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        line = one_line(text)
        room = console.width - name_width - GAP
        if max(map(len, re.split(r"(?<=,)|\s", line))) > room:
            console.print(f"{name}\n  {line}")
            continue
        text_beside = indent_after_name(name, line, name_width + GAP - 1, console.width)
        console.print(text_beside, soft_wrap=True)


def _value_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)
