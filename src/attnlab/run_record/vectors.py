"""The vectors of a run's vocabulary over its steps: small to keep, read back with a known error.

A number is stored as a byte, in 127ths of the largest one of its token: it is off by at most half
a step, 1/254 of that.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from attnlab.run_record.read import decoding, decompressed
from attnlab.run_record.record import Record

TABLE = "vectors"
ERROR = 1 / 254
"""A number that was read is at most this far from the one recorded, in its token's largest."""


def row(step: int, vectors: Float[np.ndarray, "token d_model"]) -> dict[str, Any]:
    """Write the vectors of the first tokens of a vocabulary as a row of the record."""
    largest = np.abs(vectors).max(axis=1)
    unit = np.where(largest > 0, largest, 1)[:, None] / 127
    codes = np.rint(vectors / unit).astype(np.int8)
    return {
        "step": step,
        "width": vectors.shape[1],
        "largest": largest.astype(np.float64).tolist(),
        "codes": pa.compress(codes.tobytes(), codec="zstd", asbytes=True),
    }


def recorded(
    record: Record,
) -> tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step token d_model"]]:
    """Read (steps, vectors); of a run that recorded none, both are empty.

    Where attempts kept different numbers of tokens, those that all kept.
    """
    rows: Sequence[dict[str, Any]] = record.rows(TABLE).to_pylist()
    if not rows:
        return np.empty(0, np.int64), np.empty((0, 0, 0), np.float32)
    with decoding(record.path, TABLE):
        vectors = [_decoded(row) for row in rows]
        common = min(len(one) for one in vectors)
        return np.array([r["step"] for r in rows]), np.stack([one[:common] for one in vectors])


def _decoded(row: dict[str, Any]) -> Float[np.ndarray, "token d_model"]:
    largest = np.array(row["largest"], dtype=np.float32)
    shape = (len(largest), int(row["width"]))
    whole = decompressed(row["codes"], math.prod(shape))
    return np.frombuffer(whole, np.int8).reshape(shape) / np.float32(127) * largest[:, None]
