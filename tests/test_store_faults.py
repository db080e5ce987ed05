"""What a store's failure means follows from what the store said, however deep it is wrapped."""

import errno

import botocore.exceptions as boto
import pytest
from s3fs.errors import translate_boto_error

from nfbmr.errors import DataError, StoreError
from nfbmr.store_faults import StoreFault, fault_of, retried, store_sentences


def s3_error(code: str, status: int) -> Exception:
    """As s3fs raises it: an OSError of some kind, caused by botocore's."""
    response = {"Error": {"Code": code, "Message": "said so"}}
    response["ResponseMetadata"] = {"HTTPStatusCode": status}  # type: ignore[assignment]
    return translate_boto_error(boto.ClientError(response, "GetObject"))


def wrapped(error: Exception) -> DataError:
    outer = DataError("it cannot be read")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (s3_error("ExpiredToken", 400), StoreFault.REFUSES_ALL),
        (s3_error("InvalidAccessKeyId", 403), StoreFault.REFUSES_ALL),
        (s3_error("NoSuchBucket", 404), StoreFault.REFUSES_ALL),
        (boto.NoCredentialsError(), StoreFault.REFUSES_ALL),
        (s3_error("400", 400), StoreFault.REFUSES_ALL),  # HEAD, expired
        (s3_error("Bad Request", 400), StoreFault.REFUSES_ALL),
        (s3_error("InvalidArgument", 400), StoreFault.OTHER),
        (s3_error("AccessDenied", 403), StoreFault.DENIED),
        (s3_error("403", 403), StoreFault.DENIED),
        (s3_error("SlowDown", 503), StoreFault.BUSY),
        (s3_error("SomethingNew", 503), StoreFault.BUSY),
        (s3_error("InternalError", 500), StoreFault.BUSY),
        (boto.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), StoreFault.BUSY),
        (boto.ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), StoreFault.BUSY),
        (ConnectionResetError(errno.ECONNRESET, "reset"), StoreFault.BUSY),
        (OSError(errno.ESTALE, "stale"), StoreFault.BUSY),
        (s3_error("QuotaExceeded", 403), StoreFault.FULL),
        (s3_error("507", 507), StoreFault.FULL),
        (OSError(errno.ENOSPC, "full"), StoreFault.FULL),
        (s3_error("NoSuchKey", 404), StoreFault.MISSING),
        (FileNotFoundError(errno.ENOENT, "gone"), StoreFault.MISSING),
        (PermissionError(errno.EACCES, "one file, or a share"), StoreFault.DENIED),
        (PermissionError(errno.EPERM, "one file, or a share"), StoreFault.DENIED),
        (OSError(errno.EKEYEXPIRED, "a share's ticket ran out"), StoreFault.DENIED),
        (OSError(errno.ENOKEY, "a share's ticket is gone"), StoreFault.DENIED),
        (s3_error("MethodNotAllowed", 405), StoreFault.OTHER),
        (s3_error("InvalidRange", 416), StoreFault.OTHER),
        (ValueError("a defect"), StoreFault.OTHER),
    ],
    ids=repr,
)
def test_a_failure_has_one_kind_wrapped_or_not(error: Exception, fault: StoreFault) -> None:
    assert fault_of(error) is fault
    assert fault_of(wrapped(error)) is fault


def test_a_busy_store_is_tried_until_it_answers() -> None:
    failures = [s3_error("SlowDown", 503), ConnectionResetError()]

    def action() -> str:
        if failures:
            raise failures.pop()
        return "bytes"

    assert retried(action, patience_s=30.0) == "bytes"
    assert not failures


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (s3_error("AccessDenied", 403), 1),
        (s3_error("NoSuchKey", 404), 1),
        (ValueError("a defect"), 1),
        (s3_error("ExpiredToken", 400), 3),
    ],
    ids=repr,
)
def test_what_time_does_not_mend_is_raised(error: Exception, tries: int) -> None:
    seen = []

    def action() -> None:
        seen.append(1)
        raise error

    with pytest.raises(type(error)):
        retried(action, patience_s=30.0)
    assert len(seen) == tries


def test_patience_ends() -> None:
    with pytest.raises(ConnectionResetError):
        retried(lambda: (_ for _ in ()).throw(ConnectionResetError()), patience_s=0.0)


def test_a_stores_failure_is_a_sentence_and_a_defect_is_not() -> None:
    sentence = r"Writing x failed: .*full.* make some, then run"
    with pytest.raises(StoreError, match=sentence), store_sentences("Writing x"):
        raise OSError(errno.ENOSPC, "full")
    sentence = r"Writing x .*/out.*check the rights"
    with pytest.raises(StoreError, match=sentence), store_sentences("Writing x"):
        raise PermissionError(errno.EACCES, "Permission denied", "/out")
    with pytest.raises(ZeroDivisionError), store_sentences("Writing x"):
        raise ZeroDivisionError
    with pytest.raises(DataError), store_sentences("Writing x"):
        raise DataError("already a sentence")
