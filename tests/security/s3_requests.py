"""What is asked of an object store, as the actions of its access policies."""

import fnmatch
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from moto.server import ThreadedMotoServer

_KEY = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """One request: the action it needs, and on what.

    Attributes:
        action: of access policies.
        bucket: its name.
        key: the object's; empty where the bucket itself is asked.
        kind: as stores count requests: the method, or LIST.
    """

    action: str
    bucket: str
    key: str
    kind: str = field(default="", compare=False)

    @property
    def resource(self) -> str:
        return f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key else "")


def parsed(method: str, target: str, body: bytes = b"") -> list[Request]:
    """The actions that a request needs: one, or one for each object of a bulk delete.

    Args:
        method: of HTTP.
        target: path and query.
        body: of a POST.

    Raises:
        ValueError: the request is of a kind that is not known here.
    """
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    names = {part.partition("=")[0] for part in query.split("&") if part}
    if not key:
        of_bucket = {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket"}
        if method == "POST" and "delete" in names:
            keys = [unescape(found) for found in _KEY.findall(body.decode())]
            if not keys:
                raise ValueError(f"{method} {target} names no object: {body[:200]!r}")
            return [Request("s3:DeleteObject", bucket, each, method) for each in keys]
        if method == "GET" and names & {"location", "versions", "uploads", "acl", "policy"}:
            raise ValueError(f"{method} {target}")
        return [Request(of_bucket[method], bucket, "", "LIST" if method == "GET" else method)]
    if method == "DELETE" and "uploadId" in names:
        return [Request("s3:AbortMultipartUpload", bucket, key, method)]
    if method == "GET" and names & {"uploadId", "acl", "tagging", "versionId"}:
        raise ValueError(f"{method} {target}")
    of_object = {
        "GET": "s3:GetObject",
        "HEAD": "s3:GetObject",
        "PUT": "s3:PutObject",
        "POST": "s3:PutObject",
        "DELETE": "s3:DeleteObject",
    }
    return [Request(of_object[method], bucket, key, method)]


_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Recorder:
    """Stands before a test's server and writes down what it is asked for.

    Args:
        application: the server's.

    Attributes:
        requests: since ``taken`` was called last, in order.
    """

    def __init__(self, application: _Application) -> None:
        self.application = application
        self.requests: list[Request] = []

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        target = environ["PATH_INFO"]
        if environ.get("QUERY_STRING"):
            target += "?" + environ["QUERY_STRING"]
        body = b""
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
        self.requests += parsed(environ["REQUEST_METHOD"], target, body)
        return self.application(environ, start_response)

    @classmethod
    @contextmanager
    def before(cls, server: ThreadedMotoServer) -> Iterator["Recorder"]:
        """Put one before a server that has started, for the length of a block."""
        recorder = cls(server._server.app)
        server._server.app = recorder
        try:
            yield recorder
        finally:
            server._server.app = recorder.application

    def taken(self) -> list[Request]:
        """The requests so far, which are forgotten here."""
        requests, self.requests = self.requests, []
        return requests


@dataclass(frozen=True)
class Policy:
    """An access policy: statements that allow."""

    statements: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Policy":
        return cls(json.loads(path.read_text())["Statement"])

    def allowing(self, request: Request) -> set[tuple[str, str]]:
        """Pairs of action and resource pattern that allow a request."""
        return {
            (action, resource)
            for action, resource in self.pairs()
            if action == request.action and fnmatch.fnmatchcase(request.resource, resource)
        }

    def pairs(self) -> set[tuple[str, str]]:
        """All pairs of action and resource pattern."""
        return {
            (action, resource)
            for statement in self.statements
            for action in _listed(statement["Action"])
            for resource in _listed(statement["Resource"])
        }


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
