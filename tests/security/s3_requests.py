"""What is asked of an object store, as the actions of its access policies."""

import fnmatch
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/1\.\d" (?P<status>\d+)')


@dataclass(frozen=True)
class Request:
    """One request: the action it needs, and on what."""

    action: str
    bucket: str
    key: str

    @property
    def resource(self) -> str:
        return f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key else "")


def parsed(method: str, target: str) -> Request:
    """The action that a request needs.

    Raises:
        ValueError: the request is of a kind that is not known here.
    """
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    names = {part.partition("=")[0] for part in query.split("&") if part}
    if not key:
        of_bucket = {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket"}
        if method == "POST" and "delete" in names:
            return Request("s3:DeleteObject", bucket, "*")
        if method == "GET" and names & {"location", "versions", "uploads", "acl", "policy"}:
            raise ValueError(f"{method} {target}")
        return Request(of_bucket[method], bucket, "")
    if method == "DELETE" and "uploadId" in names:
        return Request("s3:AbortMultipartUpload", bucket, key)
    if method == "GET" and names & {"uploadId", "acl", "tagging", "versionId"}:
        raise ValueError(f"{method} {target}")
    of_object = {
        "GET": "s3:GetObject",
        "HEAD": "s3:GetObject",
        "PUT": "s3:PutObject",
        "POST": "s3:PutObject",
        "DELETE": "s3:DeleteObject",
    }
    return Request(of_object[method], bucket, key)


class _Recorder(logging.Handler):
    """Reads the access log of the test's server, which runs in this process."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def recorded() -> Iterator[list[Request]]:
    """The requests that the server answers while the block runs."""
    log = logging.getLogger("werkzeug")
    recorder, before = _Recorder(), log.level
    requests: list[Request] = []
    log.addHandler(recorder)
    log.setLevel(logging.INFO)
    try:
        yield requests
    finally:
        log.removeHandler(recorder)
        log.setLevel(before)
        found = [_LINE.search(line) for line in recorder.lines]
        requests += [parsed(match["method"], match["target"]) for match in found if match]


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
            if action == request.action
            and (
                fnmatch.fnmatchcase(request.resource, resource)
                or (request.key == "*" and resource.endswith("/*"))
            )
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
