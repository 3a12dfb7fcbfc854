"""What was measured of the heads of a run on whole batches, over its steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from attnlab.runs.read import decoding
from attnlab.runs.record import Record

TABLE = "heads"


def row(step: int, layer: str, measure: str, values: Sequence[float]) -> dict[str, Any]:
    """Write one measure of a layer's heads as a row of the record."""
    return {"step": step, "layer": layer, "measure": measure, "heads": list(values)}


def head_scores(
    record: Record,
) -> dict[str, dict[str, tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]]]]:
    """Read {layer: {measure: (steps, the number of each head)}}; nothing where none were measured.

    Layers go by the path of what attends ("blocks.0.mixer.attend"), in the order of `attnlab
    ablate`. What no query could have is NaN.
    """
    found: dict[str, dict[str, list[tuple[int, list[float]]]]] = {}
    with decoding(record.path, TABLE):
        for line in record.rows(TABLE).to_pylist():
            measures = found.setdefault(line["layer"], {})
            measures.setdefault(line["measure"], []).append((line["step"], line["heads"]))
        return {
            layer: {
                name: (
                    np.array([at for at, _ in rows]),
                    np.array([values for _, values in rows], float),
                )
                for name, rows in measures.items()
            }
            for layer, measures in found.items()
        }
