"""Ranges of bytes: all of them, whatever a store says at first."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from s3fs.core import S3FileSystem

from nfbmr.data import ranges
from nfbmr.data.archives import list_archive
from nfbmr.errors import DataError
from nfbmr.store_faults import StoreFault, fault_of, patience
from tests.data.test_requests import make_tar, make_zip


@pytest.mark.parametrize(("name", "data"), [("a.tar", make_tar()), ("a.zip", make_zip())])
def test_an_answer_that_was_cut_short_is_asked_for_again(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: while an archive was listed, it was taken for the archive's end."""
    path = tmp_path / name
    path.write_bytes(data)
    expected = [(e.member, e.offset, e.length) for e in list_archive(str(path)).entries]
    original, cut = ranges.fetch, []

    def sometimes_half(uri: str, *place: object) -> bytes:
        whole = original(uri, *place)  # type: ignore[arg-type]
        if len(cut) % 2 == 0 and len(whole) > 1:
            cut.append(len(whole))
            return whole[: len(whole) // 2]
        cut.append(0)
        return whole

    monkeypatch.setattr(ranges, "fetch", sometimes_half)
    listing = list_archive(str(path))
    assert cut
    assert listing.problems == []
    assert [(e.member, e.offset, e.length) for e in listing.entries] == expected


def test_what_stays_short_is_the_stores_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(ranges, "fetch", lambda *_: b"01234")
    with patience(0.0), pytest.raises(Exception, match="IncompleteRead") as caught:
        ranges.fetch_patiently(str(path), 0, 10, None)
    assert fault_of(caught.value) is StoreFault.BUSY


@contextmanager
def store_that(
    answer: Callable[[BaseHTTPRequestHandler], None], wait_s: float = 20.0
) -> Iterator[S3FileSystem]:
    """A store of which every GET is answered by a function, and given so long to do it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        fs = S3FileSystem(
            key="k",
            secret="s",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            config_kwargs={"connect_timeout": wait_s, "read_timeout": wait_s},
            skip_instance_cache=True,
        )
        fs.connect()
        yield fs
    finally:
        server.shutdown()
        server.server_close()


CODE = b"<Error><Code>PreconditionFailed</Code><Message>Not what you know.</Message></Error>"


@pytest.mark.parametrize("body", [CODE, b"", b"<html>412</html>"], ids=["code", "none", "other"])
def test_that_a_file_changed_is_told_by_the_answers_code_and_not_by_its_words(body: bytes) -> None:
    """Found in review: the words were those of one family of stores."""

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(412)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with store_that(refuse) as fs, pytest.raises(DataError, match="changed since") as caught:
        ranges._fetch_s3(fs, "bucket/a.png", None, None, "v1")
    assert caught.value.kind == "changed"


def test_a_store_that_does_not_answer_is_given_up_after_one_requests_time() -> None:
    """Found in review: s3fs and botocore asked it ten times in what is one try."""
    ended, asked = threading.Event(), []

    def wait(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        ended.wait(30)

    with store_that(wait, 1.0) as fs:
        with pytest.raises(TimeoutError, match=r"did not answer for 2 s") as caught:
            ranges._fetch_s3(fs, "bucket/a.png", None, None, None)
        ended.set()
    assert fault_of(caught.value) is StoreFault.BUSY
    assert 1 <= len(asked) <= 3
