"""The embedding vectors of a run over its steps, stored in one byte per number.

A number is stored in 127ths of the largest number of its token, so its error is at most 1/254 of
that largest number.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from attnlab.run_record.read import decompress_codes, refuse_damaged_rows
from attnlab.run_record.record import Record

TABLE = "vectors"
ERROR = 1 / 254
"""The largest error of a decoded number, as a share of its token's largest number."""


def vectors_row(
    step: int, vectors: Float[np.ndarray, "token d_model"], names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the vectors of the first tokens of a vocabulary, and their names, as a row."""
    largest = np.abs(vectors).max(axis=1)
    unit = np.where(largest > 0, largest, 1)[:, None] / 127
    codes = np.rint(vectors / unit).astype(np.int8)
    return {
        "step": step,
        "names": list(names),
        "width": vectors.shape[1],
        "largest": largest.astype(np.float64).tolist(),
        "codes": pa.compress(codes.tobytes(), codec="zstd", asbytes=True),
    }


def load_vectors(
    record: Record,
) -> tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step token d_model"]]:
    """Load (steps, vectors); both are empty for a run that recorded none.

    If attempts recorded different numbers of tokens, only those that all recorded are returned.
    """
    rows: Sequence[dict[str, Any]] = record.rows(TABLE).to_pylist()
    if not rows:
        return np.empty(0, np.int64), np.empty((0, 0, 0), np.float32)
    with refuse_damaged_rows(record.path, TABLE):
        vectors = [_decode_vectors(row) for row in rows]
        num_common = min(len(step_vectors) for step_vectors in vectors)
        steps = np.array([row["step"] for row in rows])
        return steps, np.stack([step_vectors[:num_common] for step_vectors in vectors])


def load_token_names(record: Record) -> list[str] | None:
    """Return the names of the tokens of `load_vectors`; None in records that do not name them."""
    rows: Sequence[dict[str, Any]] = record.rows(TABLE).to_pylist()
    if not rows:
        return None
    with refuse_damaged_rows(record.path, TABLE):
        names = [row.get("names") or [] for row in rows]
        num_common = min(len(row["largest"]) for row in rows)
        longest = max(names, key=len)
        if any(row_names != longest[: len(row_names)] for row_names in names):
            raise ValueError("the tokens have other names at another step")
        return list(longest[:num_common]) if len(longest) >= num_common > 0 else None


def _decode_vectors(row: dict[str, Any]) -> Float[np.ndarray, "token d_model"]:
    largest = np.array(row["largest"], dtype=np.float32)
    shape = (len(largest), int(row["width"]))
    codes = decompress_codes(row["codes"], math.prod(shape))
    return np.frombuffer(codes, np.int8).reshape(shape) / np.float32(127) * largest[:, None]
