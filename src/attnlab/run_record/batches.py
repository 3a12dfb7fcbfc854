"""Rows as messages of an Arrow stream, each with the SHA-256 of what it holds in its metadata."""

import hashlib

import pyarrow as pa

from attnlab.run_record.forms import SEAL


def serialize_batch(batch: pa.RecordBatch) -> bytes:
    """Return rows as a message of an Arrow stream, with their SHA-256 in its metadata."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={SEAL: batch_checksum(batch)})
    schema_size = batch.schema.serialize().size
    # The end mark of a stream, eight bytes, is never written: a killed attempt could not write it.
    return sink.getvalue().slice(schema_size).to_pybytes()[:-8]


def batch_checksum(batch: pa.RecordBatch) -> str:
    """Return the SHA-256 of rows: their number, their columns' names and types, and the data."""
    columns = [f"{field.name} {field.type}" for field in batch.schema]
    digest = hashlib.sha256("\n".join([str(batch.num_rows), *columns, ""]).encode())
    body = pa.ipc.read_message(batch.serialize()).body
    digest.update(body or b"")
    return digest.hexdigest()
