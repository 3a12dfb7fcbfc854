"""A dataset in the terminal: its description, and examples for human readers."""

from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from attnlab.analysis.report import align_rows
from attnlab.printable import break_lines, indent_after_name

if TYPE_CHECKING:
    from attnlab.analysis.data_report import DataReport

INDENT = " " * 12
MOST_CLASSES = 20
"""The number of classes whose balance is shown."""


def data_text(report: "DataReport", width: int | None = None) -> str:
    """Return the description of a dataset and its examples as text, as wide as the terminal."""
    width = get_terminal_size().columns if width is None else width
    sizes = ", ".join(f"{split} {size:,}" for split, size in report.splits.items())
    named_texts = [("vocabulary", _abbreviate_names(report.tokens))]
    named_texts += [("classes", _abbreviate_names(report.classes))] if report.classes else []
    named_texts += [("length", f"{report.max_length:,}"), ("splits", sizes)]
    lines = [break_lines(f"{report.name}: {report.summary}", width), ""]
    lines += [_named_text(name, text, width) for name, text in named_texts]
    lines += [break_lines(line, width) for line in _contents_lines(report)]
    named_texts = [("origin", report.origin), *(("note", note) for note in report.notes)]
    if report.chance is not None:
        chance_text = f"chance {report.chance:.3g}, at best {report.best:.3g}"
        named_texts.append(("accuracy", chance_text))
    named_texts.append(("data_hash", report.data_hash))
    lines += [_named_text(name, text, width) for name, text in named_texts]
    for example in report.examples:
        lines += ["", f"{example.split} {example.index}", break_lines(example.text, width)]
    return "\n".join(lines)


def _named_text(name: str, text: str, width: int) -> str:
    return indent_after_name(name, text, len(INDENT) - 1, width)


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
