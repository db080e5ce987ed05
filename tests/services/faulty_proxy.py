"""A proxy before an object store that fails as networks, stores and accounts do.

It forwards requests as they are, the ``Host`` header too, so that signatures stay valid; a fault
that is set answers in the store's place, or spoils the store's answer.
"""

import http.client
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import s3fs

from tests.services.swift import ObjectStore, store_environment

_PIECE_BYTES = 2**16


@dataclass(frozen=True)
class Request:
    """What a fault is chosen by.

    Attributes:
        method: GET, HEAD, PUT, POST or DELETE.
        path: with the bucket, without the query.
        number: of requests before it, since the faults were set.
    """

    method: str
    path: str
    number: int


@dataclass(frozen=True)
class Answer:
    """What the store answered.

    Attributes:
        status: of HTTP.
        headers: in order.
        body: all of it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Fault = Callable[["_Handler", Callable[[], Answer]], None]
"""Answers a request; the second argument asks the store."""

Choose = Callable[[Request], Fault | None]
"""The fault that a request meets, if any."""


def s3_error(status: int, code: str) -> Fault:
    """The store answers with one of S3's errors, and does nothing."""

    def answer(handler: "_Handler", _ask: Callable[[], Answer]) -> None:
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
            f"<Message>{code} by a test</Message><RequestId>1</RequestId></Error>"
        ).encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        handler.send_answer(Answer(status, headers, body))

    return answer


SLOW_DOWN = s3_error(503, "SlowDown")
EXPIRED = s3_error(400, "ExpiredToken")
"""As AWS says it: to a HEAD, whose answer has no body, with nothing but the status."""
UNKNOWN_KEY = s3_error(403, "InvalidAccessKeyId")
DENIED = s3_error(403, "AccessDenied")
QUOTA = s3_error(403, "QuotaExceeded")
NO_ROOM = s3_error(507, "InsufficientStorage")


def reset(handler: "_Handler", _ask: Callable[[], Answer]) -> None:
    """The connection is reset before anything is answered."""
    handler.reset_connection()


def reset_in_the_middle(handler: "_Handler", ask: Callable[[], Answer]) -> None:
    """The connection is reset after half of the body."""
    handler.send_answer(ask(), share=0.5)
    handler.reset_connection()


def truncated(handler: "_Handler", ask: Callable[[], Answer]) -> None:
    """The connection ends in order after half of the body that the header promised."""
    handler.send_answer(ask(), share=0.5)
    handler.close_connection = True


def cut_short(handler: "_Handler", ask: Callable[[], Answer]) -> None:
    """Half of the body under a header that says it were all."""
    answer = ask()
    body = answer.body[: len(answer.body) // 2]
    handler.send_answer(Answer(answer.status, _with_length(answer.headers, len(body)), body))


def slow(seconds: float) -> Fault:
    """Half of the body, a pause, the rest."""

    def answer(handler: "_Handler", ask: Callable[[], Answer]) -> None:
        handler.send_answer(ask(), pause_s=seconds)

    return answer


def silent(handler: "_Handler", _ask: Callable[[], Answer]) -> None:
    """Nothing is answered until the proxy ends."""
    handler.proxy.ended.wait()
    handler.close_connection = True


def _with_length(headers: list[tuple[str, str]], length: int) -> list[tuple[str, str]]:
    return [(k, str(length) if k.lower() == "content-length" else v) for k, v in headers]


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes:
        port: of loopback where it listens.
        upstream_port: of loopback where the store listens.
        ended: set when it stops.
        seen: requests since the faults were set.
        failed: those of them that met a fault.
    """

    port: int
    upstream_port: int
    ended: threading.Event = field(default_factory=threading.Event)
    seen: int = 0
    failed: int = 0
    _choose: Choose = lambda _: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def faults(self, choose: Choose) -> Iterator[None]:
        """Fail, for the length of the block, the requests for which a fault is chosen."""
        with self._lock:
            self._choose, self.seen, self.failed = choose, 0, 0
        try:
            yield
        finally:
            with self._lock:
                self._choose = lambda _: None

    def choose(self, method: str, path: str) -> Fault | None:
        """The fault of the next request."""
        with self._lock:
            fault = self._choose(Request(method, path, self.seen))
            self.seen += 1
            self.failed += fault is not None
        return fault


def some(
    share: float, seed: int, fault: Fault, of: Callable[[Request], bool] = lambda _: True
) -> Choose:
    """A share of requests fails, drawn at random from a seed."""
    generator = random.Random(seed)
    return lambda request: fault if of(request) and generator.random() < share else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in writes of their own, and are waited for at the other end.
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.choose(self.command, urlsplit(self.path).path)
        if fault is None:
            self.send_answer(self._ask(body))
        else:
            fault(self, lambda: self._ask(body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _ask(self, body: bytes) -> Answer:
        store = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream_port, timeout=60)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    store.putheader(name, value)
            store.endheaders(body or None)
            response = store.getresponse()
            hop = ("connection", "transfer-encoding", "keep-alive")
            headers = [(k, v) for k, v in response.getheaders() if k.lower() not in hop]
            data = response.read()
        finally:
            store.close()
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(data))))
        return Answer(response.status, headers, data)

    def send_answer(self, answer: Answer, share: float = 1.0, pause_s: float = 0.0) -> None:
        """Send an answer, or its first part alone, with a pause in the middle."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = answer.body[: int(len(answer.body) * share)]
        middle = len(body) // 2 if pause_s else 0
        self.wfile.write(body[:middle])
        self.wfile.flush()
        time.sleep(pause_s)
        self.wfile.write(body[middle:])
        self.wfile.flush()

    def reset_connection(self) -> None:
        """Close at once and without order: the other end sees a reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        os.close(self.connection.detach())

    def finish(self) -> None:
        """The other end may be gone, which is what is tested."""
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A connection that breaks is no news here."""


@contextmanager
def running_proxy(upstream_port: int) -> Iterator[FaultyProxy]:
    """A proxy for the length of a block."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy = FaultyProxy(server.server_address[1], upstream_port)
        handler.proxy = proxy
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            server.shutdown()
            thread.join()


@contextmanager
def store_behind_proxy(store: ObjectStore) -> Iterator[FaultyProxy]:
    """A proxy before a store, by which this process reaches it for the length of a block."""
    with running_proxy(store.port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in store_environment(proxy.endpoint).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield proxy
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
