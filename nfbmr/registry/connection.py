"""The connection to MLflow: address, client, patience, experiment."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nfbmr.errors import ConfigError, RegistryUnavailableError, drop_logins
from nfbmr.registry.failures import registry_errors
from nfbmr.registry.names import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_SQLITE = "sqlite:///"
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_FORGOTTEN_AFTER_S = 300.0

_T = TypeVar("_T")


def default_uri(work_dir: str) -> str:
    """The tracking URI of ``MLFLOW_TRACKING_URI``, else SQLite in the work directory.

    Raises:
        ConfigError: there is neither, because the work directory is in an object store.
    """
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    if from_environment:
        return from_environment
    return embedded_uri(work_dir)


def embedded_uri(work_dir: str) -> str:
    """The tracking URI of SQLite in the work directory, whatever the environment says.

    Raises:
        ConfigError: the work directory is in an object store.
    """
    if "://" in work_dir:
        raise ConfigError(
            f"--work-dir {work_dir} cannot hold the embedded registry, which is a local file: give "
            "--registry http://… or sqlite:///…, or set MLFLOW_TRACKING_URI."
        )
    return f"{_SQLITE}{_without_steps(Path(work_dir).expanduser())}/mlflow.db"


def _without_steps(path: Path) -> Path:
    """The absolute path without ``..``: MLflow keeps addresses as they are given."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # links stay what they are


def _open_database(uri: str) -> None:
    """Fail now where a file cannot be opened: MLflow would try for 100 seconds, and each time.

    How long it is tried again is for ``patiently`` to say.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(uri, poolclass=NullPool).connect() as connection:
        connection.execute(text("PRAGMA schema_version"))


class Connection:
    """A connection to an MLflow tracking server and registry.

    Args:
        uri: tracking URI: ``sqlite:///…`` (made where it is missing) or ``http://…``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._experiment: Experiment | None = None
        # MLflow's own first connection is not made for several threads at once.
        self._connecting = threading.Lock()
        self._gone_since: float | None = None
        self._last_failed = 0.0

    @property
    def argument(self) -> str:
        """What to give as ``--registry`` to reach the same registry from another folder.

        Without a login: that comes from the environment.
        """
        path = self.uri.removeprefix(_SQLITE)
        if path != self.uri:
            return f"{_SQLITE}{Path(path).absolute()}"
        return drop_logins(self.uri)

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use."""
        with self._connecting:
            if self._client is None:
                self._client = self._connected()
            return self._client

    def _connected(self) -> MlflowClient:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow would try for minutes, and send again what the server may have done already.
        # How long to try is ours to say, see ``patiently``; what is tried again looks first.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        # Standard output is for results: --json must stay JSON.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        if self.uri.startswith(_SQLITE):
            Path(self.uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            with registry_errors("opening the database", self.uri):
                _open_database(self.uri)
        # MLflow announces on standard error that it makes its tables.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        with registry_errors("connecting", self.uri):
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def patiently(self, operation: Callable[[], _T], patience_s: float) -> _T:
        """Do something with the registry; while it cannot be reached, try again.

        Pauses grow from half a second to 30 seconds. The patience counts from the moment the
        registry went away: of a hundred detectors only the first waits for it.

        Args:
            operation: may be done again after it was cut off anywhere.
            patience_s: how long a registry may be gone.

        Raises:
            RegistryUnavailableError: it was gone for longer.
            RegistryError: it refused.
        """
        pause_s = _FIRST_PAUSE_S
        if time.monotonic() - self._last_failed > _FORGOTTEN_AFTER_S:
            self._gone_since = None  # It may have come back since, and gone away again.
        while True:
            try:
                result = operation()
            except RegistryUnavailableError:
                now = time.monotonic()
                self._gone_since = self._gone_since or now
                self._last_failed = now
                left_s = self._gone_since + patience_s - now
                if left_s <= 0:
                    raise
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self._gone_since = None
                return result

    def _known_experiment(self) -> Experiment | None:
        """The experiment as it was first seen, asked for once; None before a night made it."""
        if self._experiment is None:
            self._experiment = self.client.get_experiment_by_name(EXPERIMENT)
        return self._experiment

    def _experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith(_SQLITE):
            database = _without_steps(Path(self.uri.removeprefix(_SQLITE)))
            location = str(database.parent / "artifacts")
        return self._create_experiment(location)

    def _create_experiment(self, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return str(self.client.get_experiment_by_name(EXPERIMENT).experiment_id)

    def prepare(self) -> None:
        """Create database and experiment once, before several processes need them.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        with registry_errors("preparing the experiment", self.uri):
            self._experiment_id()
