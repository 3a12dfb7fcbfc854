"""What makes two runs the same run."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from attnlab.run_record.history import first_form


def canonical_json(identity: Mapping[str, Any]) -> bytes:
    """Return the identity in the form that is hashed: sorted, compact JSON.

    Raises TypeError for a value that is not plain, ValueError for a float that is not finite.
    """
    return json.dumps(plain_config(identity), sort_keys=True, separators=(",", ":")).encode()


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 of the identity's first form.

    So a run keeps its hash when a class moves or gains a knob at its default (`history.py`).
    """
    return hashlib.sha256(canonical_json(first_form(identity))).hexdigest()[:10]


def plain_config(value: Any, key: str = "identity") -> Any:
    """Return a copy of types common to JSON and YAML: dict, list, str, int, float, bool, None."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{key}: the key {name!r} is {type(name).__name__}, expected str")
        return {name: plain_config(child, f"{key}.{name}") for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_config(child, f"{key}[{index}]") for index, child in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: {value} cannot be written down; give a finite number or null")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{key}: {type(value).__name__} is no plain value; give a mapping, list, text, number, "
        "true, false or null"
    )
