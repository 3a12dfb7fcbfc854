"""Attention patterns in the record: small to keep, and read back with a known error.

A weight w is stored as the byte round(255 sqrt(w)), so small weights keep their digits: the error
is at most 0.5/255 * 2 sqrt(w) + (0.5/255)^2, below .0040 everywhere and below .0004 at w = .01.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from attnlab.runs.read import decoding, decompressed
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
    """The tap that passed it, "blocks.0.mixer.attend.pattern" of attention, "blocks.0.mixer.mixing"
    where the shares of what is mixed are no attention; or `INFLUENCE`."""
    tokens: Sequence[str]
    """The keys."""
    query_at: Sequence[int]
    """The position of each query in its own sequence."""
    asked_at: int
    """The position that the model answers from (the last, where it answers at several)."""
    weights: Float[np.ndarray, "head query key"]

    reading: Sequence[str] | None = None
    """The tokens of the queries, where these are of another sequence than the keys."""

    heads: Sequence[int] | None = None
    """The numbers of the heads, where only some were kept."""

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each head in its layer, from 0."""
        return range(len(self.weights)) if self.heads is None else self.heads

    @property
    def is_attention(self) -> bool:
        """Whether the weights are those of attention."""
        return self.source.endswith(".pattern")

    @property
    def queries(self) -> Sequence[str]:
        """The tokens that look."""
        if self.reading is not None:
            return self.reading
        return [self.tokens[at] for at in self.query_at]

    def of(self, heads: Sequence[int]) -> "Pattern":
        """Keep these heads alone."""
        return replace(self, weights=self.weights[list(heads)], heads=list(heads))

    def row(self) -> dict[str, Any]:
        """Write it as a row of the record. Raises ValueError for what is no weight."""
        return {
            "step": self.step,
            "probe": self.probe,
            "source": self.source,
            "tokens": list(self.tokens),
            "reading": list(self.reading or ()),
            "query_at": list(self.query_at),
            "asked_at": self.asked_at,
            "heads": len(self.weights),
            "numbers": list(self.numbers),
            "codes": encode(self.weights),
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Pattern":
        """Give back what `row` wrote."""
        tokens, query_at, heads = row["tokens"], row["query_at"], int(row["heads"])
        numbers, asked_at = row.get("numbers"), int(row["asked_at"])
        shape = (heads, len(query_at), len(tokens))
        if numbers is not None and (len(numbers) != heads or min(numbers, default=0) < 0):
            raise ValueError(f"{heads} heads cannot have the numbers {numbers}")
        if min([asked_at, *query_at]) < 0:
            raise ValueError(f"{asked_at} and {query_at} are not all positions")
        return cls(
            step=row["step"],
            probe=row["probe"],
            source=row["source"],
            tokens=tokens,
            query_at=query_at,
            asked_at=asked_at,
            weights=decode(row["codes"], shape),
            # Earlier versions kept patterns of one sequence alone.
            reading=row.get("reading") or None,
            heads=numbers,
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
    size = math.prod(shape)
    whole = decompressed(codes, size)
    return (np.frombuffer(whole, np.uint8).reshape(shape).astype(np.float32) / 255) ** 2


def probes(record: Record) -> list[str]:
    """Name what was looked at, in the order of the record."""
    table = record.rows(TABLE)
    return table["probe"].unique().to_pylist() if table.num_rows else []


def recorded(record: Record, step: int | None = None, probe: str | None = None) -> list[Pattern]:
    """Read the patterns of a run in order of steps; those of one step or probe, if it is named."""
    table = record.rows(TABLE)
    for name, wanted in (("step", step), ("probe", probe)):
        if wanted is not None and table.num_rows:
            table = table.filter(pc.field(name) == wanted)
    with decoding(record.path, TABLE):
        return [Pattern.read(row) for row in table.to_pylist()]
