"""MLflow: registering detectors, finding them, loading them. The only file that imports mlflow.

A category's model is ``nfbmr-<category>``. A version's files are the detector's (safetensors and
JSON) in the run's ``detector`` folder; nothing is pickled. MLflow is imported when it is needed:
scoring actors that read detectors straight from their store never pay for it.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr import storage
from nfbmr.errors import ConfigError, RegistryError
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.model_version import MetricPoint, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
EXPERIMENT = "nfbmr"
_PREFIX = "nfbmr-"
_ARTIFACT_FOLDER = "detector"
_KEY_TAG = "nfbmr.key"


def default_uri(work_dir: str) -> str:
    """The tracking URI of ``MLFLOW_TRACKING_URI``, else SQLite in the work directory.

    Raises:
        ConfigError: there is neither, because the work directory is in an object store.
    """
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    if from_environment:
        return from_environment
    if "://" in work_dir:
        raise ConfigError(
            f"--work-dir {work_dir} cannot hold the embedded registry, which is a local file: give "
            "--registry http://… or sqlite:///…, or set MLFLOW_TRACKING_URI."
        )
    return f"sqlite:///{Path(work_dir).absolute()}/mlflow.db"


@contextmanager
def _registry_errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RegistryError(
            f"The model registry at {_without_password(uri)} failed while {doing}: "
            f"{_without_password(reason)}. Check "
            "--registry and that the server is up; credentials come from the environment."
        ) from error


def _without_password(text: str) -> str:
    """The text with the login of every URI in it blotted out."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


class Registry:
    """A connection to an MLflow tracking server and registry.

    Args:
        uri: tracking URI: ``sqlite:///…`` (made where it is missing) or ``http://…``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, connected on first use."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            if self.uri.startswith("sqlite:///"):
                Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            # MLflow announces on standard error that it makes its tables.
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            from mlflow import MlflowClient

            with _registry_errors("connecting", self.uri):
                self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith("sqlite:///"):
            database = Path(self.uri.removeprefix("sqlite:///")).absolute()
            location = str(database.parent / "artifacts")
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def prepare(self) -> None:
        """Create database and experiment once, before several processes need them.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        with _registry_errors("preparing the experiment", self.uri):
            self._experiment_id()

    def register(
        self,
        category: str,
        folder: Path,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curves: Iterable[MetricPoint],
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """Log a run with a detector's files and make it the category's next version.

        Args:
            category: the product type.
            folder: with the detector's files; all files in it are logged.
            params: settings of the run.
            metrics: final numbers.
            curves: losses per epoch.
            tags: of run and version.

        Returns:
            The new version, which carries the alias ``challenger``.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        with _registry_errors(f"registering {category!r}", self.uri):
            run = self.client.create_run(self._experiment_id(), run_name=f"{category}")
            run_id = run.info.run_id
            points = [Metric(p.name, p.value, now_ms, p.step) for p in curves]
            points += [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
            for start in range(0, len(points), 1000):
                self.client.log_batch(run_id, metrics=points[start : start + 1000])
            self.client.log_batch(
                run_id,
                params=[Param(name, str(value)[:6000]) for name, value in params.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
            self.client.log_artifacts(run_id, str(folder), _ARTIFACT_FOLDER)
            self.client.set_terminated(run_id)
            name = _PREFIX + category
            self._ensure_model(name)
            version = self.client.create_model_version(
                name,
                source=storage.join(run.info.artifact_uri, _ARTIFACT_FOLDER),
                run_id=run_id,
                tags=dict(tags),
            )
            self.client.set_registered_model_alias(name, CHALLENGER, version.version)
        return self.resolve(category, str(version.version))

    def record(
        self,
        key: str,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Mapping[str, str],
    ) -> str:
        """Log what a job did as a run; the same key again adds to the same run.

        Args:
            key: of what is recorded.
            name: of the run, as people see it.
            params: logged the first time.
            metrics: logged every time: the latest count.
            files: text by name.

        Returns:
            The run's id.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        with _registry_errors(f"recording {name!r}", self.uri):
            experiment_id = self._experiment_id()
            found = self.client.search_runs([experiment_id], f"tags.`{_KEY_TAG}` = '{key}'")
            if found:
                run_id = str(found[0].info.run_id)
            else:
                run = self.client.create_run(experiment_id, run_name=name, tags={_KEY_TAG: key})
                run_id = str(run.info.run_id)
                logged = [Param(each, str(value)[:6000]) for each, value in params.items()]
                for start in range(0, len(logged), 100):
                    self.client.log_batch(run_id, params=logged[start : start + 100])
            points = [Metric(each, float(value), now_ms, 0) for each, value in metrics.items()]
            for start in range(0, len(points), 1000):
                self.client.log_batch(run_id, metrics=points[start : start + 1000])
            for file, text in files.items():
                self.client.log_text(run_id, text, file)
            self.client.set_terminated(run_id)
        return run_id

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def promote(self, category: str, version: str, tags: Mapping[str, str]) -> None:
        """Make a version the champion; the champion so far becomes ``previous``.

        Args:
            category: the product type.
            version: number of the version.
            tags: the decision with its numbers, set on the version.
        """
        name = _PREFIX + category
        champion = self.find(category, CHAMPION)
        with _registry_errors(f"promoting {category!r} version {version}", self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(name, version, key, value)
            if champion is not None and champion.version != version:
                self.client.set_registered_model_alias(name, PREVIOUS, champion.version)
            self.client.set_registered_model_alias(name, CHAMPION, version)

    def list_versions(self) -> list[ModelVersion]:
        """All versions of all categories, by category, newest first."""
        with _registry_errors("listing models", self.uri):
            versions: list[ModelVersion] = []
            for model in _pages(self.client.search_registered_models):
                if model.name.startswith(_PREFIX):
                    versions += self._versions(model.name)
        return sorted(versions, key=lambda v: (v.category, -int(v.version)))

    def _versions(self, name: str) -> list[ModelVersion]:
        aliases: dict[str, list[str]] = {}
        for alias, version in self.client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        found = _pages(self.client.search_model_versions, filter_string=f"name='{name}'")
        return [_model_version(v, aliases.get(str(v.version), [])) for v in found]

    def find(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """The version with this alias or number, or None."""
        from mlflow.exceptions import MlflowException

        name = _PREFIX + category
        with _registry_errors(f"looking up {category!r}", self.uri):
            try:
                if alias_or_version.isdigit():
                    version = self.client.get_model_version(name, alias_or_version)
                else:
                    version = self.client.get_model_version_by_alias(name, alias_or_version)
                aliases = self.client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        own = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
        return _model_version(version, own)

    def resolve(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion:
        """The concrete version behind an alias or number.

        Raises:
            RegistryError: there is none; the message names what there is.
        """
        found = self.find(category, alias_or_version)
        if found is not None:
            return found
        versions = self.list_versions()
        known = sorted({v.category for v in versions})
        if category not in known:
            near = difflib.get_close_matches(category, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise RegistryError(
                f"There is no model for category {category!r} in {_without_password(self.uri)}."
                f"{hint} Known: {', '.join(known) or 'none; run jobs/train.py first'}."
            )
        own = [v for v in versions if v.category == category]
        aliases = sorted({alias for v in own for alias in v.aliases})
        raise RegistryError(
            f"Category {category!r} has no version or alias {alias_or_version!r}: its versions are "
            f"{', '.join(v.version for v in own)}, its aliases {', '.join(aliases) or 'none'}."
        )

    def losses(self, model: ModelVersion) -> dict[str, list[float]]:
        """A version's losses per epoch, by name: ``flow_loss``, ``source_loss``, ``target_loss``.

        Raises:
            RegistryError: the registry could not be reached, or the run is gone.
        """
        names = ("flow_loss", "source_loss", "target_loss")
        with _registry_errors(f"reading the losses of {model.name} v{model.version}", self.uri):
            history = {name: self.client.get_metric_history(model.run_id, name) for name in names}
        return {
            name: [point.value for point in sorted(points, key=lambda point: point.step)]
            for name, points in history.items()
            if points
        }

    def load(self, category: str, alias_or_version: str = CHAMPION) -> Detector:
        """Resolve and load a detector.

        Raises:
            RegistryError: there is no such version, or its files cannot be fetched.
            WeightsError: its files are damaged or of another format.
        """
        return load_detector(self.resolve(category, alias_or_version), self.uri)


def load_detector(model: ModelVersion, registry_uri: str) -> Detector:
    """Load the detector of a concrete version; MLflow is asked only for proxied artifacts.

    Raises:
        RegistryError: its files cannot be fetched.
        WeightsError: they are damaged or of another format.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-detector-") as temporary:
        folder = Path(temporary)
        scheme = model.source.partition(":")[0] if "://" in model.source else "file"
        if scheme in ("file", "s3", "gs", "abfs", "abfss"):
            for name in (JSON_FILE, TENSORS_FILE):
                data = storage.read(storage.join(model.source, name))
                if data is None:
                    raise RegistryError(
                        f"{model.name} version {model.version} is registered, but its file {name} "
                        f"is not at {model.source}: was it removed from the store?"
                    )
                (folder / name).write_bytes(data)
            return Detector.load(folder)
        return Detector.load(_download(model, registry_uri, folder))


def _download(model: ModelVersion, registry_uri: str, folder: Path) -> Path:
    from mlflow import artifacts

    with _registry_errors(f"fetching {model.name} version {model.version}", registry_uri):
        path = artifacts.download_artifacts(
            artifact_uri=model.source, dst_path=str(folder), tracking_uri=registry_uri
        )
    return Path(path)


def _model_version(version: Any, aliases: Iterable[str]) -> ModelVersion:
    return ModelVersion(
        category=version.name.removeprefix(_PREFIX),
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        source=version.source,
        aliases=tuple(sorted(aliases)),
        tags=dict(version.tags),
        created_at=version.creation_timestamp / 1000.0,
    )


def _pages(search: Any, **arguments: Any) -> Iterator[Any]:
    """All results of an MLflow search, page by page."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return
