"""What several tests need: an S3-compatible server, the real pictures, a local Ray."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from nfbmr.session import ray_session

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3-compatible server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a new bucket; credentials and address are in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"s3://test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray on this machine that all tests of a session share."""
    with ray_session():
        yield


@pytest.fixture(scope="session")
def real_weights() -> str:
    """A real ImageNet backbone, where it lies beside the project."""
    path = SHARED / "weights" / "mobilenetv2_100.imagenet.safetensors"
    if not path.exists():
        pytest.skip("the real backbone does not lie beside the project")
    return str(path)
