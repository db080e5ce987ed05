"""What MLflow, its database and its artifact store raise, as one sentence without credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nfbmr.errors import RegistryError, RegistryUnavailableError, without_logins
from nfbmr.store_faults import StoreFault, fault_of

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_PASSING = (StoreFault.BUSY, StoreFault.FULL, StoreFault.REFUSES_ALL)
"""Of the artifact store: credentials that expired are renewed some time."""


def without_password(text: str) -> str:
    """The text with the login of every URI, and every secret in a query, blotted out."""
    return without_logins(text)


@contextmanager
def registry_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what goes wrong inside the block into a ``RegistryError``.

    Args:
        doing: what the block does, for the sentence.
        uri: of the registry.

    Raises:
        RegistryUnavailableError: it may go well later: the server is gone or busy.
        RegistryError: it will not.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    store_errors = (Boto3Error, BotoCoreError, ClientError, OSError)
    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, *store_errors) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = RegistryUnavailableError if _may_go_well_later(error) else RegistryError
        # The cause is not chained: its text may hold the login that is blotted out here.
        raise kind(
            f"The model registry at {without_password(uri)} failed while {doing}: "
            f"{without_password(reason)}. Check --registry and that the server is up; credentials "
            "come from the environment."
        ) from None


def _may_go_well_later(error: BaseException) -> bool:
    """Whether it is the server's or the network's state, not the request, that is at fault."""
    import requests
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, requests.RequestException):
        return error.response is None or _is_servers(error.response.status_code)
    if isinstance(error, MlflowException):
        return _is_servers(error.get_http_status_code())
    if isinstance(error, (ClientError, OSError)) and fault_of(error) in _PASSING:
        return True
    if isinstance(error, ClientError):
        return _is_servers(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
    gone = (OperationalError, Boto3Error, BotoCoreError, ConnectionError, TimeoutError)
    return isinstance(error, gone)


def _is_servers(status: int) -> bool:
    return status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS
