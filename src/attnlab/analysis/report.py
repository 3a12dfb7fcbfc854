"""The base class of reports: a frozen dataclass whose JSON is made from its fields.

Commands, pages and notebooks all read the same reports. `docs/json.md` describes the fields.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

SCHEMA = 2
"""The version of the reports' fields. It grows where a field changes its meaning or is removed."""
IN_PYTHON = {"json": False}
"""The metadata of a field that JSON leaves out: `field(metadata=IN_PYTHON)`."""


@dataclass(frozen=True)
class Report:
    """The answer to a question about runs."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it: its fields by name, and the schema's version.

        NaN and infinity become null.
        """
        return {"schema": SCHEMA, **to_plain(self)}


def align_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def to_plain(value: Any) -> Any:
    """Return a value with dataclasses, named tuples, arrays and tensors as dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        names = [field.name for field in fields if field.metadata.get("json", True)]
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_plain(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    # Arrays and tensors have `tolist`; to check the types would import torch for every report.
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_plain(to_list())
    if isinstance(value, (list, tuple, range)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
