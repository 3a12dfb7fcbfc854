"""The rows that the layers of a drawn chart show."""

import json
from typing import Any


def rows_by_layer(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the rows of each layer of a Vega-Lite specification, after its filters."""
    return [_rows(spec, layer) for layer in spec["layer"]]


def _rows(spec: dict[str, Any], layer: dict[str, Any]) -> list[dict[str, Any]]:
    data = layer.get("data") or spec["data"]
    rows = spec["datasets"][data["name"]]
    rows = json.loads(rows) if isinstance(rows, str) else rows
    for transform in layer.get("transform", []):
        for condition in transform["filter"].split(" && "):
            rows = [row for row in rows if _holds(condition, row)]
    return rows


def _holds(condition: str, row: dict[str, Any]) -> bool:
    if condition.startswith("isValid("):
        return row[condition.removeprefix("isValid(datum.").removesuffix(")")] is not None
    name, value = condition.removeprefix("datum.").split(" == ")
    return row[name] == json.loads(value)
