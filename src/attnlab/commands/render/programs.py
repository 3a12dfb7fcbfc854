"""The maps of a text in the formats of other programs."""

import json
from collections.abc import Sequence

from attnlab.analysis.export_patterns import (
    arrays_as_lists,
    left_out_of_bertviz,
    left_out_of_circuitsvis,
    to_bertviz,
    to_circuitsvis,
)
from attnlab.errors import RequestError
from attnlab.printable import say_message
from attnlab.run_record.pattern_table import Pattern

PROGRAMS = {
    "bertviz": (to_bertviz, left_out_of_bertviz),
    "circuitsvis": (to_circuitsvis, left_out_of_circuitsvis),
}


def encode_for_program(program: str, patterns: Sequence[Pattern], run: str) -> bytes:
    """Return a program's arguments as JSON, and print on standard error which maps it leaves out.

    Raises RequestError where the program can show no map.
    """
    to_arguments, reasons_by_map = PROGRAMS[program]
    try:
        program_arguments = to_arguments(patterns)
    except ValueError as error:
        raise RequestError(
            f"--format {program}: {error}; -o FILE.npz writes every map of {run}"
        ) from error
    maps_by_reason: dict[str, list[str]] = {}
    for map_name, reason in reasons_by_map(patterns).items():
        maps_by_reason.setdefault(reason, []).append(map_name)
    if maps_by_reason:
        reasons = "; ".join(f"{', '.join(maps)} ({why})" for why, maps in maps_by_reason.items())
        say_message(
            f"--format {program} leaves out {reasons}; -o FILE.npz writes every map of {run}"
        )
    return json.dumps(arrays_as_lists(program_arguments)).encode() + b"\n"
