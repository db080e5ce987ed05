"""What a store's failure means, and trying again what may pass.

A store is where files lie: a disk, a mounted share, an object store. s3fs and botocore try a few
times within seconds themselves; this adds the patience that a throttled or restarting store needs.
"""

from __future__ import annotations

import errno
import http.client
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from nfbmr.errors import NfbmrError, StoreError

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long what a store fails at is tried again, where no setting says otherwise."""

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 15.0
_SURE_AFTER = 3


class StoreFault(StrEnum):
    """Kinds of failure, by what helps against them."""

    MISSING = "missing"
    """The file is not there: nothing helps."""
    DENIED = "denied"
    """Access to this file is refused: perhaps to others as well."""
    REFUSES_ALL = "refuses all"
    """Credentials that expired or do not exist, an account or bucket that is gone."""
    BUSY = "busy"
    """Throttled, reset, timed out, cut short, out of order: time may help."""
    FULL = "full"
    """No room to write: somebody may make some."""
    OTHER = "other"
    """Nothing that is known to be the store's."""


_CODES = {
    StoreFault.REFUSES_ALL: """AccountProblem AllAccessDisabled AuthFailure ExpiredToken
        ExpiredTokenException InvalidAccessKeyId InvalidClientTokenId InvalidToken NoSuchBucket
        NotSignedUp RequestTimeTooSkewed SignatureDoesNotMatch TokenRefreshRequired
        UnrecognizedClientException 401""",
    StoreFault.DENIED: "AccessDenied Forbidden 403",
    StoreFault.BUSY: """BandwidthLimitExceeded IncompleteBody InternalError OperationAborted
        RequestLimitExceeded RequestThrottled RequestThrottledException RequestTimeout
        RequestTimeoutException ServiceUnavailable SlowDown Throttling ThrottlingException
        TooManyRequests TooManyRequestsException 408 425 429 500 502 503 504""",
    StoreFault.FULL: """InsufficientStorage QuotaExceeded XMinioAdminBucketQuotaExceeded
        XMinioStorageFull 507""",
    StoreFault.MISSING: "NoSuchKey NotFound 404",
}
"""What S3 and its imitators call them, and HTTP."""
_BARE = ("400", "Bad Request")
_BY_CODE = {code: fault for fault, codes in _CODES.items() for code in codes.split()}
_BY_ERRNO = {
    errno.ENOSPC: StoreFault.FULL,
    errno.EDQUOT: StoreFault.FULL,
    # A share whose server restarts.
    errno.EBUSY: StoreFault.BUSY,
    errno.EHOSTDOWN: StoreFault.BUSY,
    errno.EIO: StoreFault.BUSY,
    errno.ENOTCONN: StoreFault.BUSY,
    errno.EREMOTEIO: StoreFault.BUSY,
    errno.ESTALE: StoreFault.BUSY,
    errno.ETIMEDOUT: StoreFault.BUSY,
    # One file's matter, or that of a whole share whose ticket has run out: who reads finds out.
    errno.EACCES: StoreFault.DENIED,
    errno.EPERM: StoreFault.DENIED,
    errno.EKEYEXPIRED: StoreFault.DENIED,
    errno.EKEYREJECTED: StoreFault.DENIED,
    errno.EKEYREVOKED: StoreFault.DENIED,
    errno.ENOKEY: StoreFault.DENIED,
}
_BY_TYPE: tuple[tuple[type[BaseException], StoreFault], ...] = (
    (FileNotFoundError, StoreFault.MISSING),
    (boto.NoCredentialsError, StoreFault.REFUSES_ALL),
    (boto.PartialCredentialsError, StoreFault.REFUSES_ALL),
    (boto.UnauthorizedSSOTokenError, StoreFault.REFUSES_ALL),
    (boto.HTTPClientError, StoreFault.BUSY),
    (boto.ConnectionError, StoreFault.BUSY),
    (ResponseParserError, StoreFault.BUSY),
    (boto.IncompleteReadError, StoreFault.BUSY),
    (boto.CredentialRetrievalError, StoreFault.BUSY),
    (aiohttp.ClientError, StoreFault.BUSY),
    (http.client.HTTPException, StoreFault.BUSY),
    (ConnectionError, StoreFault.BUSY),
    (TimeoutError, StoreFault.BUSY),
    (PermissionError, StoreFault.DENIED),
)


def fault_of(error: BaseException) -> StoreFault:
    """The kind of a failure, looked for along the chain of its causes.

    What the store itself said is nearest to the end of the chain and counts first.
    """
    found = [_own_fault(one) for one in _causes(error)]
    known = [fault for fault in found if fault is not StoreFault.OTHER]
    return known[-1] if known else StoreFault.OTHER


def is_stores(error: BaseException) -> bool:
    """Whether a store failed: then nothing is known of the file that was read, not even damage."""
    return fault_of(error) not in (StoreFault.OTHER, StoreFault.MISSING)


def knows_no_conditions(error: BaseException) -> bool:
    """Whether a store refused a request only because it knows no conditional writes."""
    said = [one.response for one in _causes(error) if isinstance(one, boto.ClientError)]
    return any(answer.get("Error", {}).get("Code") == "NotImplemented" for answer in said)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _own_fault(error: BaseException) -> StoreFault:
    if isinstance(error, boto.ClientError):
        return _by_response(error.response)
    number = getattr(error, "errno", None)
    if number == errno.EPERM and isinstance(error.__cause__, boto.ClientError):
        return StoreFault.OTHER  # What s3fs makes of a request that a store does not know.
    if number in _BY_ERRNO:
        return _BY_ERRNO[number]
    status = str(getattr(error, "status", None))
    if status in _BY_CODE:
        return _BY_CODE[status]
    return next((f for kind, f in _BY_TYPE if isinstance(error, kind)), StoreFault.OTHER)


def _by_response(response: Any) -> StoreFault:
    """The code of S3's XML where there is one; an answer to HEAD has its HTTP status alone.

    A bare 400 is what AWS answers a HEAD with credentials that have expired: a GET would say so.
    """
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if code in _BARE:
        return StoreFault.REFUSES_ALL
    return _BY_CODE.get(code) or _BY_CODE.get(status) or StoreFault.OTHER


_patience_s: ContextVar[float] = ContextVar("patience_s", default=PATIENCE_S)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """How long this thread tries in the block what a store fails at, where nothing else is said."""
    before = _patience_s.set(seconds)
    try:
        yield
    finally:
        _patience_s.reset(before)


def retried(action: Callable[[], T], patience_s: float | None = None) -> T:
    """Do something with a store, again and again while that may help.

    A busy or full store is tried for ``patience_s``, with growing random delays; one that refuses
    everything three times, because credentials may just have been renewed. Anything else is raised
    at once.

    Args:
        action: safe to do again.
        patience_s: after so long it is tried for the last time; by default see ``patience``.
    """
    deadline = time.monotonic() + (_patience_s.get() if patience_s is None else patience_s)
    delay_s = _FIRST_DELAY_S
    tries = 0
    while True:
        try:
            return action()
        except Exception as error:
            tries += 1
            fault = fault_of(error)
            passing = fault in (StoreFault.BUSY, StoreFault.FULL)
            renewing = fault is StoreFault.REFUSES_ALL and tries < _SURE_AFTER
            if not (passing or renewing):
                raise
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise
            pause_s = min(delay_s * random.uniform(0.5, 1.5), left_s)
        time.sleep(pause_s)
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


_HELP = {
    StoreFault.REFUSES_ALL: "The store refuses everything: renew the credentials in the "
    "environment",
    StoreFault.DENIED: "Access is refused: check the rights of this user, or of the credentials in "
    "the environment",
    StoreFault.BUSY: "The store does not answer as it should: look at its state",
    StoreFault.FULL: "There is no room left: make some",
    StoreFault.MISSING: "Something was removed meanwhile: restore it",
}


@contextmanager
def store_sentences(doing: str) -> Iterator[None]:
    """Let a store's failure end the block as a sentence; other exceptions pass.

    Args:
        doing: what fails then, as in "writing s3://bucket/scores".

    Raises:
        StoreError: a store failed for longer than patience lasts.
    """
    try:
        yield
    except NfbmrError:
        raise
    except Exception as error:
        help_ = _HELP.get(fault_of(error))
        if help_ is None:
            raise
        raise StoreError(
            f"{doing} failed: {type(error).__name__}: {error}. {help_}, then run the same command "
            "again. What was finished stays."
        ) from error
