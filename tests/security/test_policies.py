"""The bucket policies by themselves, and the search for secrets in packed files."""

import base64
import gzip
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from tests.security.packed_contents import contents, forms
from tests.security.s3_requests import Policy, Recorder, Request, parsed

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


def test_a_bulk_delete_needs_what_each_of_its_objects_needs() -> None:
    body = b"<Delete><Object><Key>scores/1</Key></Object><Object><Key>a&amp;b</Key></Object>"
    assert parsed("POST", f"/{BUCKET}?delete", body) == [
        Request("s3:DeleteObject", BUCKET, "scores/1"),
        Request("s3:DeleteObject", BUCKET, "a&b"),
    ]
    writer = Policy.read(POLICIES / "writer.json")
    mine, elsewhere = parsed("POST", f"/{BUCKET}?delete", body)
    assert writer.allowing(mine)
    assert not writer.allowing(elsewhere)
    with pytest.raises(ValueError, match="names no object"):
        parsed("POST", f"/{BUCKET}?delete", b"")


def test_the_recorder_sees_what_a_client_asks_for() -> None:
    """A client that deletes in bulk: the objects are in the body, not in the address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = fsspec.filesystem(
        "s3",
        key="x",
        secret="y",
        client_kwargs={"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"},
    )
    try:
        with Recorder.before(server) as recorder:
            store.call_s3("create_bucket", Bucket=BUCKET)
            store.pipe({f"{BUCKET}/scores/{index}": b"x" for index in range(3)})
            assert {request.action for request in recorder.taken()} >= {"s3:PutObject"}
            store.rm([f"{BUCKET}/scores/{index}" for index in range(3)])
            assert not store.find(f"{BUCKET}/scores")
    finally:
        server.stop()
    deleted = {request.key for request in recorder.taken() if request.action == "s3:DeleteObject"}
    assert deleted == {f"scores/{index}" for index in range(3)}


@pytest.mark.parametrize("secret", ["planted/secret+of the=store", "plain"])
def test_the_search_knows_the_forms_in_which_a_secret_travels(secret: str) -> None:
    basic = base64.b64encode(f"anna:{secret}".encode()).decode()
    for text in (
        f"key = {secret}",
        f"https://store/x?key={quote(secret, safe='')}",
        f"https://store/x?key={quote_plus(secret)}",
        json.dumps({"key": secret}),
        f"Authorization: Basic {basic}",
        repr(base64.b64encode(secret.encode())),
    ):
        assert [form for form in forms(secret, user="anna") if form in text.encode()], text


def test_the_search_looks_into_what_is_packed() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"error": [SECRET] * 100}), sink, compression="zstd")
    in_metadata = pa.BufferOutputStream()
    table = pa.table({"error": ["x"]}).replace_schema_metadata({"key": SECRET})
    pq.write_table(table, in_metadata, compression="zstd")
    packed = [sink.getvalue().to_pybytes(), gzip.compress(SECRET.encode() * 3)]
    for data in (*packed, in_metadata.getvalue().to_pybytes()):
        assert SECRET.encode() in contents(data)
