"""A dataset in the terminal: its description, and examples for human readers."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attnlab.analysis.report import align_rows

if TYPE_CHECKING:
    from attnlab.analysis.data_report import DataReport

WIDTH = 80
INDENT = " " * 12
MOST_CLASSES = 20
"""The number of classes whose balance is shown."""


def data_text(report: "DataReport") -> str:
    """Return the description of a dataset and its examples as text."""
    sizes = ", ".join(f"{split} {size:,}" for split, size in report.splits.items())
    lines = [f"{report.name}: {report.summary}", ""]
    lines.append(f"vocabulary  {_abbreviate_names(report.tokens)}")
    lines += [f"classes     {_abbreviate_names(report.classes)}"] if report.classes else []
    lines += [f"length      {report.max_length:,}", f"splits      {sizes}"]
    lines += _contents_lines(report)
    for label, text in [("origin", report.origin), *(("note", note) for note in report.notes)]:
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"{label:<12}",
            subsequent_indent=INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    if report.chance is not None:
        lines.append(f"accuracy    chance {report.chance:.3g}, at best {report.best:.3g}")
    lines.append(f"data_hash   {report.data_hash}")
    for example in report.examples:
        lines += ["", f"{example.split} {example.index}", example.text]
    return "\n".join(lines)


def _contents_lines(report: "DataReport") -> list[str]:
    """Return the tokens and documents of each split, and the examples of each class."""
    lines = []
    for name in ("tokens", "documents"):
        counts = {split: getattr(contents, name) for split, contents in report.contents.items()}
        split_counts = [
            f"{split} {count:,}" for split, count in counts.items() if count is not None
        ]
        lines += [f"{name:<12}{', '.join(split_counts)}"] if split_counts else []
    contents_by_split = report.contents.items()
    class_counts = {
        split: contents.classes for split, contents in contents_by_split if contents.classes
    }
    if not class_counts:
        return lines
    rows = [["class", *class_counts]]
    for name in (report.classes or [])[:MOST_CLASSES]:
        rows.append([name, *(_share_text(counts, name) for counts in class_counts.values())])
    if report.classes and len(report.classes) > MOST_CLASSES:
        rows.append(["...", *("" for _ in class_counts)])
    first_line, *other_lines = align_rows(rows)
    return [*lines, f"balance     {first_line}", *(f"{INDENT}{line}" for line in other_lines)]


def _share_text(counts: Mapping[str, int], class_name: str) -> str:
    return f"{counts[class_name]:,} ({counts[class_name] / max(sum(counts.values()), 1):.0%})"


def _abbreviate_names(names: Sequence[str], count: int = 8) -> str:
    """Return the number of names with the first and last `count` of them, on one line."""
    printable_names = [
        name if name.isprintable() and name.strip() else repr(name) for name in names
    ]
    if len(printable_names) > 2 * count:
        printable_names = [*printable_names[:count], "...", *printable_names[-count:]]
    return f"{len(names):,}: {' '.join(printable_names)}"
