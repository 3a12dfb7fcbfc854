"""Who reads whom in the record: small to keep, and read back with a known error.

A weight w is stored as the byte round(255 sqrt(w)), so small weights keep their digits: the error
is at most 0.5/255 * 2 sqrt(w) + (0.5/255)^2, below .0040 everywhere and below .0004 at w = .01.
The same bytes go from the recorder to the screen; whoever computes decodes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, UInt8

from attnlab.layers import AttentionLayer, MixingLayer
from attnlab.run_record.layers import Layer, Layers
from attnlab.run_record.read import decoding, decompressed
from attnlab.run_record.record import Record

TABLE = "patterns"
INFLUENCE = "influence"
"""The source of rows that show gradients times inputs, and no layer."""

ERROR = 0.0040
"""A weight that was read is at most this far from the one that was recorded."""


class Weights:
    """Weights between 0 and 1: as they are, or as the bytes of the record."""

    def __init__(
        self,
        exact: Float[np.ndarray, "head query key"] | None = None,
        codes: UInt8[np.ndarray, "head query key"] | None = None,
    ) -> None:
        self._exact, self._codes = exact, codes

    @cached_property
    def exact(self) -> Float[np.ndarray, "head query key"]:
        """The weights; those of the record are within `ERROR`."""
        if self._exact is not None:
            return self._exact
        assert self._codes is not None
        return (self._codes.astype(np.float32) / 255) ** 2

    @cached_property
    def codes(self) -> UInt8[np.ndarray, "head query key"]:
        """The bytes. Raises ValueError for what is no weight."""
        if self._codes is not None:
            return self._codes
        weights = self.exact
        # A softmax in float32 can end a rounding error above 1.
        if not (weights.min(initial=0) >= 0 and weights.max(initial=0) <= 1 + 1e-5):
            raise ValueError(
                f"weights lie between 0 and 1, not {weights.min(initial=0)} and {weights.max()}"
            )
        return np.rint(255 * np.sqrt(np.minimum(weights, 1))).astype(np.uint8)

    def of(self, heads: Sequence[int]) -> "Weights":
        """Keep some heads alone."""
        kept = (part if part is None else part[list(heads)] for part in (self._exact, self._codes))
        return Weights(*kept)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Who read whom: the weights of one layer on one probe, after one optimizer step."""

    step: int
    probe: str
    layer: Layer | None
    """The layer; None where the weights are the influence of each token on the answer."""
    tokens: Sequence[str]
    """The keys."""
    query_at: Sequence[int]
    """The position of each query in its own sequence."""
    asked_at: int
    """The position that the model answers from (the last, where it answers at several)."""
    data: Weights

    reading: Sequence[str] | None = None
    """The tokens of the queries, where these are of another sequence than the keys."""

    heads: Sequence[int] | None = None
    """The numbers of the heads, where only some were kept."""

    roles: Sequence[str] = ()
    """What each key is to the question (`Dataset.token_roles`), "" if nothing; empty if unknown."""

    @property
    def weights(self) -> Float[np.ndarray, "head query key"]:
        """The weights, decoded where they come from a record."""
        return self.data.exact

    @property
    def codes(self) -> UInt8[np.ndarray, "head query key"]:
        """The weights as bytes."""
        return self.data.codes

    @property
    def source(self) -> str:
        """What the record calls it."""
        return INFLUENCE if self.layer is None else self.layer.source

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each head in its layer, from 0."""
        return range(len(self.codes)) if self.heads is None else self.heads

    @property
    def attention(self) -> AttentionLayer | None:
        """The layer, where it attends."""
        return self.layer if isinstance(self.layer, AttentionLayer) else None

    @property
    def mixing(self) -> MixingLayer | None:
        """The layer, where it mixes without attention."""
        return self.layer if isinstance(self.layer, MixingLayer) else None

    @property
    def queries(self) -> Sequence[str]:
        """The tokens that look."""
        if self.reading is not None:
            return self.reading
        return [self.tokens[at] for at in self.query_at]

    def of(self, heads: Sequence[int]) -> "Pattern":
        """Keep these heads alone."""
        return replace(self, data=self.data.of(heads), heads=list(heads))

    def row(self) -> dict[str, Any]:
        """Write it as a row of the record. Raises ValueError for what is no weight."""
        codes = self.codes
        return {
            "step": self.step,
            "probe": self.probe,
            "source": self.source,
            "tokens": list(self.tokens),
            "reading": list(self.reading or ()),
            "roles": list(self.roles),
            "query_at": list(self.query_at),
            "asked_at": self.asked_at,
            "heads": len(codes),
            "numbers": list(self.numbers),
            "codes": pa.compress(codes.tobytes(), codec="zstd", asbytes=True),
        }

    @classmethod
    def read(cls, row: Mapping[str, Any], layers: Layers) -> "Pattern":
        """Return what `row` wrote, of one of a model's layers."""
        tokens, query_at, heads = row["tokens"], row["query_at"], int(row["heads"])
        numbers, asked_at, source = row.get("numbers"), int(row["asked_at"]), row["source"]
        shape = (heads, len(query_at), len(tokens))
        roles = row.get("roles") or ()
        if source != INFLUENCE and source not in layers.by_source:
            raise ValueError(f"{source!r} is none of the layers that the run states")
        if numbers is not None and (len(numbers) != heads or min(numbers, default=0) < 0):
            raise ValueError(f"{heads} heads cannot have the numbers {numbers}")
        if min([asked_at, *query_at]) < 0:
            raise ValueError(f"{asked_at} and {query_at} are not all positions")
        if len(roles) not in (0, len(tokens)):
            raise ValueError(f"{len(tokens)} tokens cannot have {len(roles)} roles")
        codes = decompressed(row["codes"], shape[0] * shape[1] * shape[2])
        return cls(
            step=row["step"],
            probe=row["probe"],
            layer=layers.by_source.get(source),
            tokens=tokens,
            query_at=query_at,
            asked_at=asked_at,
            data=Weights(codes=np.frombuffer(codes, np.uint8).reshape(shape)),
            # Earlier versions kept patterns of one sequence alone, and no roles.
            reading=row.get("reading") or None,
            heads=numbers,
            roles=roles,
        )


def probes(record: Record) -> list[str]:
    """Name what was looked at, in the order of the record."""
    table = record.rows(TABLE)
    return table["probe"].unique().to_pylist() if table.num_rows else []


def recorded(
    record: Record, step: int | None = None, probe: str | Sequence[str] | None = None
) -> list[Pattern]:
    """Read the patterns of a run in order of steps; those of one step or some probes, if named.

    The table is read once.
    """
    table = record.rows(TABLE)
    if table.num_rows and step is not None:
        table = table.filter(pc.field("step") == step)
    if table.num_rows and probe is not None:
        wanted = [probe] if isinstance(probe, str) else list(probe)
        table = table.filter(pc.field("probe").isin(wanted))
    layers = record.layers
    with decoding(record.path, TABLE):
        return [Pattern.read(row, layers) for row in table.to_pylist()]
