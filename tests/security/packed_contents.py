"""What is packed in a file, for a search through all of it."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq


def contents(data: bytes) -> bytes:
    """A file's bytes, with what is packed in them."""
    if data.startswith(b"\x1f\x8b"):
        return data + gzip.decompress(data)
    if data.startswith(b"PAR1"):
        table = pq.read_table(pa.BufferReader(data))
        packed = [value for column in table.columns for value in column.to_pylist()]
        return data + repr([packed, table.schema.metadata, table.schema]).encode()
    return data
