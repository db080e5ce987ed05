"""What can go wrong, as types: every message names the thing, the value, and what to do next.

A job that ends with one of these prints its message and returns its ``exit_code``; a traceback is
shown only for errors that are not listed here, because those are defects of the program.
"""

from __future__ import annotations

import re
from http.client import HTTPException

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

_CLIENTS = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, HTTPException)
STORE_ERRORS = (OSError, ValueError, ImportError, *_CLIENTS)
"""What fsspec raises when files cannot be reached: on a disk, for a protocol that is unknown or
needs a package, for an object store without credentials."""


STORE_FAULTS = (OSError, *_CLIENTS)
"""What a store raises that is busy, full, gone or refuses, and no programming error is."""

# A port, then a path that may have an @, is no login where files lie; elsewhere, as in addresses of
# databases, whatever stands between a colon and the word's last @ is a password.
_WITH_PORTS = "|".join(f"(?<={name}://)" for name in ("http", "https", "ftp", "ftps", "hdfs"))
_PORT = rf"(?:{_WITH_PORTS})[^/@\s:]*:\d{{1,5}}(?:[/?#\s]|$)"
_LOGIN = re.compile(rf"(?i)(?<=://)(?:(?!{_PORT})[^/@\s:]*:\S*@|[^/@\s]+@)")
_NAME = (
    r"(?<![\w-])((?:[\w-]*(?:password|passwd|secret(?:[_-]?key)?|token|signature|credentials?"
    r"|api[_-]?key|access[_-]?key(?:[_-]?id)?)|sig)"
)
_SECRET = re.compile(rf"(?i){_NAME}\s*=\s*['\"]?)[^&\s'\"]+")
_PAIR = re.compile(rf"(?i){_NAME}(\\*['\"])\s*:\s*\2)(?:(?!\2)(?:\\.|.))*")
_QUERY = re.compile(rf"(?i)[?&#;]{_NAME})=[^&\s]")

MAY_HOLD_A_LOGIN = r"://\S*@|[?&#;][^=]+="
"""What every address with a login or a secret in its query has, and most others have not: for
programs that look through millions, in the grammar of RE2."""


def without_logins(text: str) -> str:
    """The text with every address's login and every secret blotted out.

    Secrets are values of queries, settings and JSON whose names say so, as in
    ``X-Amz-Signature=…``, ``aws_secret_access_key = …`` and ``"password": "…"``.
    """
    text = _LOGIN.sub("***@", text)
    return _SECRET.sub(r"\1***", _PAIR.sub(r"\1***", text))


def drop_logins(text: str) -> str:
    """The text with the login of every address left out, so that the addresses stay usable."""
    return _LOGIN.sub("", text)


class NfbmrError(Exception):
    """Base of all errors that a user can cause and mend.

    Logins in addresses never get into a message, wherever the reason comes from: messages end in
    logs and in the rows of pictures that failed.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(without_logins(message))


def refuse_login(uri: str) -> None:
    """Refuse an address with a login: it would end in plans, rows and registered models.

    Raises:
        ConfigError: it has one, or a signature, token or key in its query.
    """
    if _LOGIN.search(uri):
        raise ConfigError(
            f"The address {uri} has a login in it: give it without. Credentials come from the "
            "environment only (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)."
        )
    if found := _QUERY.search(uri):
        raise ConfigError(
            f"The address {uri} has a credential in its query ({found[1]}): give the file as "
            "s3://bucket/key instead. Credentials come from the environment only "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)."
        )


class ConfigError(NfbmrError):
    """A setting or command-line argument that does not exist or does not fit."""

    exit_code = 2


class DataError(NfbmrError):
    """A data root, category or archive that is missing, empty or not laid out as said.

    ``kind`` is a short stable word for counting pictures that failed: ``source`` (the bytes cannot
    be read), ``missing``, ``changed``, ``too_large``; a store that refuses them
    makes it ``denied`` or ``busy``.
    """

    exit_code = 3

    def __init__(self, message: str, kind: str = "source") -> None:
        super().__init__(message)
        self.kind = kind


class DamagedTableError(DataError):
    """A Parquet file or manifest whose bytes are no table."""


class DecodeError(NfbmrError):
    """One picture that cannot be turned into pixels.

    ``kind`` is a short stable word for counting: ``empty``, ``unreadable``, ``truncated``,
    ``unsupported``, ``too_large``, ``too_slow``, ``killed``.
    """

    exit_code = 3

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        """Keep ``kind`` when Ray carries the error from a worker to the driver."""
        return type(self), (str(self), self.kind)


class WeightsError(NfbmrError):
    """Backbone weights or a detector file that cannot be found, read or matched."""

    exit_code = 4


class FitError(NfbmrError):
    """A fit that diverged or cannot start; the category and step are in the message."""

    exit_code = 5


class FeaturesError(FitError):
    """Features that were computed are not in the cache any more, or are damaged there."""


class RegistryError(NfbmrError):
    """A model, version or alias that the registry does not know, or a registry out of reach."""

    exit_code = 6


class ForeignVersionError(RegistryError):
    """A registered version that nfbmr has not made: one category's matter.

    ``version`` is its number.
    """

    def __init__(self, message: str, version: str = "") -> None:
        super().__init__(message)
        self.version = version


class MissingFilesError(RegistryError):
    """A registered version whose files are not where they were put."""


class RegistryUnavailableError(RegistryError):
    """A registry that cannot be reached now; the same may go well later."""


class OutputError(NfbmrError):
    """An output that already holds something else, or scores that are not what was expected."""

    exit_code = 7


class FailureBudgetError(NfbmrError):
    """More pictures or categories failed than the run allows; what succeeded has been kept."""

    exit_code = 8


class WorkerError(NfbmrError):
    """A worker of the cluster failed for a reason that is no picture's; finished work stays."""

    exit_code = 9


class StallError(WorkerError):
    """Nothing was finished for longer than is waited: no worker could begin, or all hang."""


class StoreError(NfbmrError):
    """A disk or object store that refuses, does not answer or is full, whatever is asked of it."""

    exit_code = 10
