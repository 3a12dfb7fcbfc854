"""Attention patterns in the record: stored in one byte per weight, with a known error.

A weight w is stored as the byte round(255 sqrt(w)), so that small weights are precise: the error
is at most 0.5/255 * 2 sqrt(w) + (0.5/255)^2, below .0040 everywhere and below .0004 at w = .01.
The same bytes go from the recorder to the screen; code that computes with weights decodes them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, UInt8

from attnlab.layers import AttentionLayer, Layer, MixingLayer
from attnlab.run_record.layers import Layers
from attnlab.run_record.read import decompress_codes, refuse_damaged_rows
from attnlab.run_record.record import Record

TABLE = "patterns"
INFLUENCE = "influence"
"""The source of rows that hold gradients times inputs, and belong to no layer."""

ERROR = 0.0040
"""The largest difference between a decoded weight and the one that was recorded."""


class PatternWeights:
    """Weights between 0 and 1, from exact values or from the bytes of the record."""

    def __init__(
        self,
        exact: Float[np.ndarray, "head query key"] | None = None,
        codes: UInt8[np.ndarray, "head query key"] | None = None,
    ) -> None:
        self._exact, self._codes = exact, codes

    @cached_property
    def exact(self) -> Float[np.ndarray, "head query key"]:
        """The weights; if decoded from the record, within `ERROR`."""
        if self._exact is not None:
            return self._exact
        assert self._codes is not None
        return (self._codes.astype(np.float32) / 255) ** 2

    @cached_property
    def codes(self) -> UInt8[np.ndarray, "head query key"]:
        """The bytes. Raises ValueError for values outside of 0 to 1."""
        if self._codes is not None:
            return self._codes
        weights = self.exact
        # A softmax in float32 can exceed 1 by a rounding error.
        if not (weights.min(initial=0) >= 0 and weights.max(initial=0) <= 1 + 1e-5):
            raise ValueError(
                f"weights lie between 0 and 1, not {weights.min(initial=0)} and {weights.max()}"
            )
        return np.rint(255 * np.sqrt(np.minimum(weights, 1))).astype(np.uint8)

    def select_heads(self, heads: Sequence[int]) -> "PatternWeights":
        """Return the weights of some heads, by their index."""
        exact = None if self._exact is None else self._exact[list(heads)]
        codes = None if self._codes is None else self._codes[list(heads)]
        return PatternWeights(exact, codes)


@dataclass(frozen=True, eq=False)
class Pattern:
    """The attention weights of one layer on one probe, after one optimizer step."""

    step: int
    """The optimizer step after which it was recorded."""
    probe: str
    """The name of the probe, the sequence that the model read; of a text, the text."""
    layer: Layer | None
    """The layer; None where the weights are the influence of each token on the answer."""
    tokens: Sequence[str]
    """The token of each key: the last axis of the weights."""
    query_at: Sequence[int]
    """The position of each query in its own sequence: the second axis of the weights."""
    answer_position: int
    """The position in the queries' sequence that the model answers from (the last, if it answers at
    several)."""
    data: PatternWeights
    """The weights, exact or as the bytes of the record; `weights` and `codes` return them."""

    query_tokens: Sequence[str] | None = None
    """The token of each query, if queries are of another sequence than the keys; None if both are
    of one, so that `tokens[query_at[q]]` is the token of query q (`queries`)."""

    heads: Sequence[int] | None = None
    """The number in its layer of each head: the first axis of the weights; None for all heads of
    the layer, in order (`numbers`)."""

    roles: Sequence[str] = ()
    """The role of each key (`Dataset.token_roles`), "" if it has none; empty if unknown."""

    @property
    def weights(self) -> Float[np.ndarray, "head query key"]:
        """The weights, decoded if they come from a record."""
        return self.data.exact

    @property
    def codes(self) -> UInt8[np.ndarray, "head query key"]:
        """The weights as bytes."""
        return self.data.codes

    @property
    def source(self) -> str:
        """The name of the layer's rows in the record."""
        return INFLUENCE if self.layer is None else self.layer.source

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each head in its layer, from 0."""
        return range(len(self.codes)) if self.heads is None else self.heads

    @property
    def attention(self) -> AttentionLayer | None:
        """The layer, if it is an attention layer."""
        return self.layer if isinstance(self.layer, AttentionLayer) else None

    @property
    def mixing(self) -> MixingLayer | None:
        """The layer, if it mixes without attention."""
        return self.layer if isinstance(self.layer, MixingLayer) else None

    @property
    def queries(self) -> Sequence[str]:
        """The tokens of the queries."""
        if self.query_tokens is not None:
            return self.query_tokens
        return [self.tokens[position] for position in self.query_at]

    def select_heads(self, heads: Sequence[int]) -> "Pattern":
        """Return the pattern with these heads only."""
        return replace(self, data=self.data.select_heads(heads), heads=list(heads))

    def to_row(self) -> dict[str, Any]:
        """Return a row of the record. Raises ValueError for values outside of 0 to 1."""
        codes = self.codes
        return {
            "step": self.step,
            "probe": self.probe,
            "source": self.source,
            "tokens": list(self.tokens),
            "reading": list(self.query_tokens or ()),
            "roles": list(self.roles),
            "query_at": list(self.query_at),
            "asked_at": self.answer_position,
            "heads": len(codes),
            "numbers": list(self.numbers),
            "codes": pa.compress(codes.tobytes(), codec="zstd", asbytes=True),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], layers: Layers) -> "Pattern":
        """Return the pattern of a row that `to_row` wrote; `layers` are those of its model."""
        tokens, query_at, num_heads = row["tokens"], row["query_at"], int(row["heads"])
        head_numbers, answer_position = row.get("numbers"), int(row["asked_at"])
        source, roles = row["source"], row.get("roles") or ()
        if source != INFLUENCE and source not in layers.by_source:
            raise ValueError(f"{source!r} is none of the layers that the run states")
        if head_numbers is not None and (
            len(head_numbers) != num_heads or min(head_numbers, default=0) < 0
        ):
            raise ValueError(f"{num_heads} heads cannot have the numbers {head_numbers}")
        if min([answer_position, *query_at]) < 0:
            raise ValueError(f"{answer_position} and {query_at} are not all positions")
        if len(roles) not in (0, len(tokens)):
            raise ValueError(f"{len(tokens)} tokens cannot have {len(roles)} roles")
        shape = (num_heads, len(query_at), len(tokens))
        codes = decompress_codes(row["codes"], math.prod(shape))
        return cls(
            step=row["step"],
            probe=row["probe"],
            layer=layers.by_source.get(source),
            tokens=tokens,
            query_at=query_at,
            answer_position=answer_position,
            data=PatternWeights(codes=np.frombuffer(codes, np.uint8).reshape(shape)),
            # Earlier versions recorded patterns within one sequence only, and no roles.
            query_tokens=row.get("reading") or None,
            heads=head_numbers,
            roles=roles,
        )


def probe_names(record: Record) -> list[str]:
    """Return the names of the probes, in the order of the record."""
    table = record.rows(TABLE)
    return table["probe"].unique().to_pylist() if table.num_rows else []


def load_patterns(
    record: Record, step: int | None = None, probe: str | Sequence[str] | None = None
) -> list[Pattern]:
    """Load the patterns of a run in order of steps; only those of `step` and `probe`, if given.

    The table is read once.
    """
    table = record.rows(TABLE)
    if table.num_rows and step is not None:
        table = table.filter(pc.field("step") == step)
    if table.num_rows and probe is not None:
        names = [probe] if isinstance(probe, str) else list(probe)
        table = table.filter(pc.field("probe").isin(names))
    layers = record.layers
    with refuse_damaged_rows(record.path, TABLE):
        return [Pattern.from_row(row, layers) for row in table.to_pylist()]
