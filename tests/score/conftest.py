"""What the tests of scoring share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from tests.services.faulty_proxy import FaultyProxy, running_proxy


@pytest.fixture(params=["disk", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, and a bucket."""
    if request.param == "disk":
        return str(tmp_path)
    bucket: str = request.getfixturevalue("s3_bucket")
    return f"{bucket}/scores"


@pytest.fixture
def proxied(
    s3_server: ThreadedMotoServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """A proxy by which this process reaches the store of ``s3_bucket``, and which can refuse."""
    with running_proxy(s3_server.get_host_and_port()[1]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
