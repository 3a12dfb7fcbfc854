"""What every answer of the analysis is: a frozen dataclass, whose JSON is made from its fields.

A command prints it, a page draws it and a notebook reads it, so that none of them answers
differently. `docs/json.md` describes the fields.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

SCHEMA = 2
"""The version of what all reports hold. It grows where a field changes its meaning or goes."""
IN_PYTHON = {"json": False}
"""The metadata of a field that JSON leaves out: `field(metadata=IN_PYTHON)`."""


@dataclass(frozen=True)
class Report:
    """An answer to a question about runs."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it: its fields by name, and the schema's version.

        A number that is none (NaN, infinity) is null.
        """
        return {"schema": SCHEMA, **plain(self)}


def plain(value: Any) -> Any:
    """Turn dataclasses, named tuples, arrays and tensors into what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        names = [field.name for field in fields if field.metadata.get("json", True)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    # Arrays and tensors; torch is not imported for the reports that hold none.
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return plain(to_list())
    if isinstance(value, (list, tuple, range)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
