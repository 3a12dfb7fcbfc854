"""Measures of a run's heads on whole batches, over its steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlab.layers import AttentionLayer
from attnlab.run_record.read import refuse_damaged_rows
from attnlab.run_record.record import Record

TABLE = "heads"


class MeasureHistory(NamedTuple):
    """A measure of a layer's heads over training."""

    steps: Int[np.ndarray, " step"]
    """The optimizer steps after which the heads were measured."""
    values: Float[np.ndarray, "step head"]
    """The measure of each head; NaN if no query could have it."""


Scores = Mapping[AttentionLayer, Mapping[str, MeasureHistory]]
"""The measures of each layer, by their names (`attnlab.interp.pattern_stats.measure_rows`)."""


def measure_row(
    step: int, layer: AttentionLayer, measure: str, values: Sequence[float]
) -> dict[str, Any]:
    """Return one measure of a layer's heads as a row of the record."""
    return {"step": step, "layer": layer.path, "measure": measure, "heads": list(values)}


def load_head_scores(record: Record) -> Scores:
    """Load the measures of all heads, in the order of their layers; empty if there are none."""
    points_by_path: dict[str, dict[str, list[tuple[int, list[float]]]]] = {}
    layers = record.layers.by_path
    with refuse_damaged_rows(record.path, TABLE):
        for row in record.rows(TABLE).to_pylist():
            if row["layer"] not in layers:
                raise ValueError(f"{row['layer']!r} is none of the layers that the run states")
            points_by_measure = points_by_path.setdefault(row["layer"], {})
            points_by_measure.setdefault(row["measure"], []).append((row["step"], row["heads"]))
        return {
            layers[path]: {
                measure: MeasureHistory(
                    np.array([step for step, _ in points]),
                    np.array([values for _, values in points], float),
                )
                for measure, points in points_by_measure.items()
            }
            for path, points_by_measure in points_by_path.items()
        }
