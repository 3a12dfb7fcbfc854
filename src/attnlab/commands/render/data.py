"""A dataset in the terminal: its description, and examples for human readers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlab.analysis.data_report import DataReport


def data_text(report: "DataReport") -> str:
    """Return the description of a dataset and its examples as text."""
    sizes = ", ".join(f"{split} {size:,}" for split, size in report.splits.items())
    lines = [f"{report.name}: {report.summary}", ""]
    lines.append(f"vocabulary  {_abbreviate_names(report.tokens)}")
    lines += [f"classes     {_abbreviate_names(report.classes)}"] if report.classes else []
    lines += [f"length      {report.max_length:,}", f"splits      {sizes}"]
    lines += [f"note        {note}" for note in report.notes]
    if report.chance is not None:
        lines.append(f"accuracy    chance {report.chance:.3g}, at best {report.best:.3g}")
    lines.append(f"data_hash   {report.data_hash}")
    for example in report.examples:
        lines += ["", f"{example.split} {example.index}", example.text]
    return "\n".join(lines)


def _abbreviate_names(names: Sequence[str], count: int = 8) -> str:
    """Return the number of names with the first and last `count` of them, on one line."""
    printable = [name if name.isprintable() and name.strip() else repr(name) for name in names]
    if len(printable) > 2 * count:
        printable = [*printable[:count], "...", *printable[-count:]]
    return f"{len(names):,}: {' '.join(printable)}"
