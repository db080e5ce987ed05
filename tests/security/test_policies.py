"""The bucket policies by themselves, and the search for secrets in packed files."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.security.packed_contents import contents
from tests.security.s3_requests import Policy, Request

POLICIES = Path(__file__).parents[2] / "cluster" / "policies"
BUCKET = "factory"
SECRET = "planted/secret+of+the+store"


def test_a_reader_cannot_change_anything_and_a_writer_only_its_own() -> None:
    reader, writer = (Policy.read(POLICIES / f"{name}.json") for name in ("reader", "writer"))
    assert {action for action, _ in reader.pairs()} == {"s3:ListBucket", "s3:GetObject"}
    assert not [pair for pair in reader.pairs() | writer.pairs() if "*" in pair[0]]
    for place in ("parts/a.png", "archive/line7.tar", "weights/b5.safetensors"):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert not writer.allowing(Request(action, BUCKET, place))
    assert not writer.allowing(Request("s3:PutObject", "another", "scores/1"))


def test_the_search_looks_into_what_is_packed() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"error": [SECRET] * 100}), sink, compression="zstd")
    in_metadata = pa.BufferOutputStream()
    table = pa.table({"error": ["x"]}).replace_schema_metadata({"key": SECRET})
    pq.write_table(table, in_metadata, compression="zstd")
    packed = [sink.getvalue().to_pybytes(), gzip.compress(SECRET.encode() * 3)]
    for data in (*packed, in_metadata.getvalue().to_pybytes()):
        assert SECRET.encode() in contents(data)
