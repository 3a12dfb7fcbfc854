"""The maps of a text in the formats of other programs."""

import json
import sys
from collections.abc import Sequence

from attnlab.analysis.export_patterns import (
    arrays_as_lists,
    left_out_of_bertviz,
    left_out_of_circuitsvis,
    to_bertviz,
    to_circuitsvis,
)
from attnlab.errors import RequestError
from attnlab.printable import say
from attnlab.run_record.pattern_table import Pattern

PROGRAMS = {
    "bertviz": (to_bertviz, left_out_of_bertviz),
    "circuitsvis": (to_circuitsvis, left_out_of_circuitsvis),
}


def for_program(name: str, patterns: Sequence[Pattern], run: str) -> bytes:
    """Return a program's arguments as JSON, and print on standard error which maps it leaves out.

    Raises RequestError where the program can show no map.
    """
    export, left_out = PROGRAMS[name]
    try:
        exported = export(patterns)
    except ValueError as error:
        raise RequestError(
            f"--format {name}: {error}; -o FILE.npz writes every map of {run}"
        ) from error
    by_reason: dict[str, list[str]] = {}
    for source, why in left_out(patterns).items():
        by_reason.setdefault(why, []).append(source)
    if by_reason:
        reasons = "; ".join(f"{', '.join(sources)} ({why})" for why, sources in by_reason.items())
        say(
            f"--format {name} leaves out {reasons}; -o FILE.npz writes every map of {run}",
            file=sys.stderr,
        )
    return json.dumps(arrays_as_lists(exported)).encode() + b"\n"
