"""What of a run's directory is read, and what is refused; no flipped bit goes unnoticed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attnlab.errors import RecordError
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.read import read_rows
from attnlab.run_record.record import Record
from tests.depth import DEPTH
from tests.fabricated import result
from tests.prose import refuses

IDENTITY = {"variant": "fake", "seed": 0, "optimizer": {"lr": 0.001, "betas": [0.9, 0.99]}}

FLIPS = 100 * DEPTH**2
"""The bits of a file that are flipped, one at a time; nearly every bit in a whole soak."""


def write_rows(attempt: Attempt, steps: range) -> None:
    for step in steps:
        attempt.append("train", [{"step": step, "loss": 1 / step}])
        words = {"step": step, "tokens": ["a", f"b{step}"], "codes": bytes([step, 255, 0])}
        attempt.append("texts", [words, words])


@pytest.fixture
def run(disk: Path) -> Path:
    """A run whose second attempt went on from a checkpoint of the first, and finished."""
    first = Attempt.claim(disk / "run", IDENTITY)
    write_rows(first, range(1, 4))
    sha256 = first.save(3, b"weights")
    write_rows(first, range(4, 5))
    first.close()
    second = Attempt.claim(disk / "run", IDENTITY, {"attempt": 1, "step": 3, "sha256": sha256})
    write_rows(second, range(4, 5))
    second.save(4, b"weights before the end")
    write_rows(second, range(5, 6))
    second.save(5, b"weights of the end")
    assert second.finish(result(steps=5, metrics={"test/loss": 0.25}, identity=IDENTITY))
    return disk / "run"


def seen(run: Path) -> dict[str, Any]:
    """Everything that a reader can learn of a run."""
    record = Record(run)
    claims = [{**a.claim} for a in record.attempts]
    tables = {name: record.rows(name).to_pylist() for name in ("train", "texts")}
    checkpoint, _ = newest_checkpoint(run)
    return {
        "identity": record.identity,
        "result": record.result,
        "state": record.state,
        "claims": claims,
        "summaries": [a.summary for a in record.attempts],
        "tables": tables,
        "checkpoint": checkpoint,
    }


def flipped_bits(content: bytes) -> range:
    # An odd stride comes upon each of the eight bits of a byte.
    return range(0, 8 * len(content), max(1, 8 * len(content) // FLIPS) | 1)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "run.json", "attempts/1/claim.json"]
    + [f"attempts/{n}/{t}.arrow" for n in (1, 2) for t in ("train", "texts")],
)
def test_no_flipped_bit_changes_what_is_read(run, name):
    whole = seen(run)
    path = run / name
    original = path.read_bytes()
    unnoticed = []
    for bit in flipped_bits(original):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        try:
            found = seen(run)
        except RecordError:
            continue
        if found != whole:
            unnoticed.append(bit)
    assert unnoticed == []
    path.write_bytes(original)
    assert seen(run) == whole


def test_a_flipped_bit_of_a_checkpoint_or_its_manifest_is_told(run):
    directory = run / "attempts/2/checkpoints"
    for path in sorted(directory.iterdir()):
        original = path.read_bytes()
        for bit in flipped_bits(original):
            damaged = bytearray(original)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(damaged))
            checkpoint, warnings = newest_checkpoint(run)
            assert checkpoint is not None
            # The rows before it count nothing in the choice of a checkpoint.
            right = (checkpoint.step, checkpoint.content) == (5, b"weights of the end")
            assert right or warnings, (path.name, bit)
        path.write_bytes(original)


def test_compressed_rows_are_refused_before_they_are_unpacked(run):
    """We write none, and a few bytes of them can be gigabytes."""
    path = run / "attempts/1/train.arrow"
    table = pa.table({"step": [1, 2], "loss": [0.0] * 2})
    for codec in ("zstd", "lz4"):
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        path.write_bytes(sink.getvalue().to_pybytes())
        with refuses(RecordError, "runs.compressed", run):
            read_rows(path, run, False)
