"""What is packed in a file, for a search through all of it."""

import base64
import gzip
import json
from urllib.parse import quote, quote_plus

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


def forms(secret: str, user: str = "") -> set[bytes]:
    """The ways in which a secret may be written: as it is, in addresses, in JSON and in base64.

    Args:
        secret: the secret.
        user: whose password it is: HTTP sends both in one piece.
    """
    texts = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    texts.add(json.dumps(secret)[1:-1])
    packed = {base64.b64encode(text.encode()) for text in (secret, f"{user}:{secret}")}
    return {text.encode() for text in texts} | packed
