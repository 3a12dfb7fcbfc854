"""A dataset in the terminal: what it is, and examples to read by eye."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnlab.analysis.data_report import DataReport


def data_text(report: "DataReport") -> str:
    """Write what a dataset is, and its examples."""
    sizes = ", ".join(f"{split} {size:,}" for split, size in report.splits.items())
    lines = [f"{report.name}: {report.summary}", ""]
    lines.append(f"vocabulary  {_names(report.tokens)}")
    lines += [f"classes     {_names(report.classes)}"] if report.classes else []
    lines += [f"length      {report.max_length:,}", f"splits      {sizes}"]
    lines += [f"note        {note}" for note in report.notes]
    if report.chance is not None:
        lines.append(f"accuracy    chance {report.chance:.3g}, at best {report.best:.3g}")
    lines.append(f"data_hash   {report.data_hash}")
    for example in report.examples:
        lines += ["", f"{example.split} {example.index}", example.text]
    return "\n".join(lines)


def _names(names: Sequence[str], count: int = 8) -> str:
    """Count names and give some of both ends, on one line."""
    printable = [name if name.isprintable() and name.strip() else repr(name) for name in names]
    if len(printable) > 2 * count:
        printable = [*printable[:count], "...", *printable[-count:]]
    return f"{len(names):,}: {' '.join(printable)}"
