"""The tables of all results, as Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnlab.run_record.write import make_directory, replace_file
from bench.gpu import results
from bench.gpu.part import Part, Row

HEAD = """\
# Measured on a GPU

Written by `make gpu-check`, which measures what is not in `{folder}/` yet; each part says when, on
what and at which commit. A share of the matrix rate divides TFLOP/s by those of the largest bf16
product under *{rate}*, on a device of the same name; a causal attention counts its whole square.
"""
NOTHING_MEASURED = """\
# Measured on a GPU

No device has measured anything so far. On a machine with a GPU, `make gpu-check` measures these
parts, writes each into `{folder}/` and shows them all here: {names}.
"""
NOT_MEASURED = (
    "`make gpu-check` measures these parts too, and no device has done so yet: {names}.\n"
)
RATE = "matrix_rate"
"""The part whose best product is the whole rate."""
SPEED = "TFLOP/s"
"""The heading of what is set against that rate."""


def write(parts: Sequence[Part], out: Path) -> None:
    """Write the tables beside the folder of the results."""
    make_directory(out.parent)
    replace_file(out.with_suffix(".md"), text(parts, out).encode())


def text(parts: Sequence[Part], out: Path) -> str:
    """Return the tables of the parts that a device has measured, and the names of the others."""
    kept_by_name = {part.name: results.read(out, part.name) for part in parts}
    names = ", ".join(f"`{name}`" for name, kept in kept_by_name.items() if kept is None)
    lines: list[str] = []
    for part in parts:
        if (kept := kept_by_name[part.name]) is not None:
            lines += [f"## {part.name}", "", part.says, "", *_measured(kept, _rate(out, kept)), ""]
    if not lines:
        return NOTHING_MEASURED.format(folder=out.name, names=names)
    unmeasured = [NOT_MEASURED.format(names=names)] if names else []
    return "\n".join([HEAD.format(folder=out.name, rate=RATE), *lines, *unmeasured])


def _measured(kept: dict[str, Any], rate: float | None) -> Iterator[str]:
    rows = [_shared(row, rate) for row in kept["rows"]]
    if rows:
        yield f"| {' | '.join(rows[0])} |"
        yield "|" + "---|" * len(rows[0])
        for row in rows:
            yield f"| {' | '.join(map(_said, row.values()))} |"
        yield ""
    for note in kept["notes"]:
        yield f"- {note}"
    if kept["notes"]:
        yield ""
    drive = f", driver {kept['driver']}, CUDA {kept['cuda']}" if kept["driver"] else ""
    yield (
        f"{kept['device']}{drive}, torch {kept['torch']}; {kept['date']}, commit "
        f"{kept['commit'] or 'unknown'}; {kept['seconds']:.0f} s."
    )


def _rate(out: Path, kept: dict[str, Any]) -> float | None:
    """Give the best rate of a matrix product on the device of these results."""
    rates = results.read(out, RATE)
    if rates is None or rates["device"] != kept["device"] or kept["part"] == RATE:
        return None
    return max(row[SPEED] for row in rates["rows"])


def _shared(row: Row, rate: float | None) -> Row:
    """Set the share of the matrix rate beside a speed."""
    if rate is None or SPEED not in row:
        return row
    speed = row[SPEED]
    share = f"{100 * speed / rate:.0f} %" if isinstance(speed, float) else None
    at = list(row).index(SPEED) + 1
    pairs = list(row.items())
    return dict([*pairs[:at], ("of the matrix rate", share), *pairs[at:]])


def _said(value: str | float | int | None) -> str:
    """Write three digits of a measured number, and all of a count."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value.replace("|", r"\|")
    if isinstance(value, int):
        return f"{value:,}"
    if 100 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}"
