"""The proxy fails as it says, seen by a client of HTTP and by the reader of planned pictures."""

import http.client
import time
from collections.abc import Iterator

import fsspec
import pytest

from nfbmr import storage
from nfbmr.errors import StoreError
from nfbmr.score.picture_reader import PictureReader
from nfbmr.score.plan import PlannedPicture
from tests.services import faulty_proxy as faulty
from tests.services.faulty_proxy import Fault, FaultyProxy, store_behind_proxy
from tests.services.swift import ObjectStore

pytestmark = pytest.mark.integration
DATA = bytes(range(256)) * 100


@pytest.fixture
def proxy(swift: ObjectStore) -> Iterator[FaultyProxy]:
    with store_behind_proxy(swift) as running:
        yield running


@pytest.fixture
def planned(proxy: FaultyProxy) -> PlannedPicture:
    bucket = f"s3://proxy-{proxy.port}"
    fsspec.filesystem("s3").mkdir(bucket)
    uri = f"{bucket}/p/1.jpg"
    storage.write_atomically(uri, DATA)
    version = storage.file_version(uri)
    return PlannedPicture(uri, f"{bucket}/p", "1.jpg", None, len(DATA), version, "bottle")


def first(count: int, fault: Fault) -> faulty.Choose:
    return lambda request: fault if request.number < count else None


@pytest.mark.parametrize(
    "fault",
    [
        faulty.SLOW_DOWN,
        faulty.reset,
        pytest.param(faulty.reset_in_the_middle, marks=pytest.mark.slow),  # half a minute
        faulty.truncated,
        faulty.slow(0.5),
    ],
)
def test_what_passes_is_waited_for(
    fault: Fault, proxy: FaultyProxy, planned: PlannedPicture
) -> None:
    """More failures in a row than botocore tries by itself."""
    with proxy.faults(first(6, fault)):
        read = PictureReader(60.0).read(planned)
    assert proxy.failed > 0
    assert (read.data, read.error) == (DATA, None)


def test_a_short_body_is_read_again(proxy: FaultyProxy, planned: PlannedPicture) -> None:
    with proxy.faults(first(2, faulty.cut_short)):
        assert PictureReader(5.0).read(planned).data == DATA
    with proxy.faults(first(99, faulty.cut_short)):
        read = PictureReader(5.0).read(planned)
    assert "12800 of its 25600 bytes" in str(read.error)
    assert read.refused is None


@pytest.mark.parametrize("fault", [faulty.EXPIRED, faulty.UNKNOWN_KEY])
def test_expired_credentials_are_the_stores_matter(
    fault: Fault, proxy: FaultyProxy, planned: PlannedPicture
) -> None:
    with proxy.faults(first(999, fault)), pytest.raises(StoreError, match="credentials"):
        PictureReader(5.0).read(planned)


def test_denied_and_busy_pictures_are_told_apart(
    proxy: FaultyProxy, planned: PlannedPicture
) -> None:
    with proxy.faults(first(999, faulty.DENIED)):
        assert PictureReader(1.0).read(planned).refused == "denied"
    with proxy.faults(first(999, faulty.reset)):
        assert PictureReader(1.0).read(planned).refused == "busy"
    fsspec.filesystem("s3").rm_file(planned.image_uri)
    gone = PictureReader(1.0).read(planned)
    assert "does not exist" in str(gone.error)
    assert gone.refused is None


def test_faults_are_what_their_names_say(proxy: FaultyProxy, planned: PlannedPicture) -> None:
    def ask() -> bytes:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        client.request("GET", "/info")
        return client.getresponse().read()

    whole = ask()
    with proxy.faults(first(1, faulty.truncated)), pytest.raises(http.client.IncompleteRead):
        ask()
    with proxy.faults(first(1, faulty.reset)), pytest.raises(ConnectionResetError):
        ask()
    with proxy.faults(first(1, faulty.cut_short)):
        assert ask() == whole[: len(whole) // 2]
    started = time.monotonic()
    with proxy.faults(first(1, faulty.slow(0.3))):
        assert ask() == whole
    assert time.monotonic() - started >= 0.3
