"""Attention patterns in the record: small to keep, and read back with a known error.

A weight w is stored as the byte round(255 sqrt(w)), so small weights keep their digits: the error
is at most 0.5/255 * 2 sqrt(w) + (0.5/255)^2, below .0040 everywhere and below .0004 at w = .01.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from attnlab.runs.record import Record

TABLE = "patterns"
INFLUENCE = "influence"
"""The source of rows that show gradients times inputs, and no attention."""

ERROR = 0.0040
"""A weight that was read is at most this far from the one that was recorded."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Who looked at whom: the weights of one layer on one probe, after one optimizer step."""

    step: int
    probe: str
    source: str
    """The tap that passed it, "blocks.0.mixer.attend.pattern"; or `INFLUENCE`."""
    tokens: Sequence[str]
    query_at: Sequence[int]
    """The position of each query."""
    asked_at: int
    """The position that the model answers from (the last, where it answers at several)."""
    weights: Float[np.ndarray, "head query key"]

    def row(self) -> dict[str, Any]:
        """Write it as a row of the record. Raises ValueError for what is no weight."""
        return {
            "step": self.step,
            "probe": self.probe,
            "source": self.source,
            "tokens": list(self.tokens),
            "query_at": list(self.query_at),
            "asked_at": self.asked_at,
            "heads": len(self.weights),
            "codes": encode(self.weights),
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Pattern":
        """Give back what `row` wrote."""
        shape = (int(row["heads"]), len(row["query_at"]), len(row["tokens"]))
        return cls(
            step=row["step"],
            probe=row["probe"],
            source=row["source"],
            tokens=row["tokens"],
            query_at=row["query_at"],
            asked_at=int(row["asked_at"]),
            weights=decode(row["codes"], shape),
        )


def encode(weights: Float[np.ndarray, "head query key"]) -> bytes:
    """Compress weights between 0 and 1. Raises ValueError for others."""
    # A softmax in float32 can end a rounding error above 1.
    if not (weights.min(initial=0) >= 0 and weights.max(initial=0) <= 1 + 1e-5):
        raise ValueError(
            f"weights lie between 0 and 1, not {weights.min(initial=0)} and {weights.max()}"
        )
    codes = np.rint(255 * np.sqrt(np.minimum(weights, 1))).astype(np.uint8)
    return pa.compress(codes.tobytes(), codec="zstd", asbytes=True)


def decode(codes: bytes, shape: tuple[int, int, int]) -> Float[np.ndarray, "head query key"]:
    """Give the weights that `encode` compressed, each within `ERROR`."""
    size = int(np.prod(shape))
    whole = pa.decompress(codes, decompressed_size=size, codec="zstd", asbytes=True)
    return (np.frombuffer(whole, np.uint8).reshape(shape).astype(np.float32) / 255) ** 2


def probes(record: Record) -> list[str]:
    """Name what was looked at, in the order of the record."""
    table = record.rows(TABLE)
    return table["probe"].unique().to_pylist() if "probe" in table.column_names else []


def recorded(record: Record, step: int | None = None, probe: str | None = None) -> list[Pattern]:
    """Read the patterns of a run in order of steps; those of one step or probe, if it is named."""
    table = record.rows(TABLE)
    for name, wanted in (("step", step), ("probe", probe)):
        if wanted is not None and name in table.column_names:
            table = table.filter(pc.field(name) == wanted)
    return [Pattern.read(row) for row in table.to_pylist()]
