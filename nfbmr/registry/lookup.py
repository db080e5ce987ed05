"""Looking versions up: which there are, what stands behind an alias, what they hold."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nfbmr.errors import RegistryError
from nfbmr.model.detector import Detector
from nfbmr.model_version import ModelVersion
from nfbmr.registry.connection import Connection
from nfbmr.registry.failures import registry_errors, without_password
from nfbmr.registry.loading import describe_detector, load_detector, read_file
from nfbmr.registry.names import CHAMPION, DECISION_FILE, category_of, is_ours, model_name
from nfbmr.registry.origin import foreign, is_below, lies_in_run
from nfbmr.registry.paging import pages

if TYPE_CHECKING:
    from mlflow.entities import Run

_NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")
"""MLflow's codes for a run that is not there, has an impossible name, or may not be seen."""


class Lookup(Connection):
    """What a registry answers without changing anything."""

    def list_versions(self, category: str | None = None) -> list[ModelVersion]:
        """All versions, of all categories or of one, by category, newest first."""
        with registry_errors("listing models", self.uri):
            versions: list[ModelVersion] = []
            for model in pages(self.client.search_registered_models):
                if is_ours(model.name) and category in (None, category_of(model.name)):
                    versions += self._versions(model.name)
        return sorted(versions, key=lambda v: (v.category, -int(v.version)))

    def categories(self) -> list[str]:
        """All categories that have a model, sorted.

        Raises:
            RegistryError: the registry could not be reached.
        """
        with registry_errors("listing models", self.uri):
            names = [model.name for model in pages(self.client.search_registered_models)]
        return sorted(category_of(name) for name in names if is_ours(name))

    def _versions(self, name: str) -> list[ModelVersion]:
        aliases: dict[str, list[str]] = {}
        for alias, version in self.client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        found = pages(self.client.search_model_versions, filter_string=f"name='{name}'")
        return [_model_version(v, aliases.get(str(v.version), [])) for v in found]

    def find(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """The version with this alias or number, or None.

        Raises:
            RegistryError: the registry could not be reached, or the version is not nfbmr's own: its
                files lie elsewhere than those of the experiment's runs.
        """
        from mlflow.exceptions import MlflowException

        name = model_name(category)
        with registry_errors(f"looking up {category!r}", self.uri):
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
        found = _model_version(version, own)
        self._require_own(found)
        return found

    def _require_own(self, model: ModelVersion) -> None:
        """Refuse a version whose files lie where somebody else can write; see ``origin``.

        The run is asked for only where MLflow's usual layout does not answer: of a registry that
        was moved, runs and versions may still name the old place.
        """
        with registry_errors(f"looking up the run of {model.name} v{model.version}", self.uri):
            experiment = self._known_experiment()
            if experiment is None or lies_in_run(model, experiment.artifact_location):
                return
            run = self._run_of(model)
        if run is not None and run.info.experiment_id == experiment.experiment_id:
            folders = (run.info.artifact_uri, f"runs:/{model.run_id}")
            if any(is_below(model.source, folder) for folder in folders):
                return
        raise foreign(model, experiment.artifact_location)

    def _run_of(self, model: ModelVersion) -> Run | None:
        from mlflow.exceptions import MlflowException

        if not model.run_id:
            return None
        try:
            return self.client.get_run(model.run_id)
        except MlflowException as error:
            if error.error_code in _NO_SUCH_RUN:
                return None
            raise

    def resolve(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion:
        """The concrete version behind an alias or number.

        Raises:
            RegistryError: there is none; the message names what there is. Or it is not nfbmr's own.
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
                f"There is no model for category {category!r} in {without_password(self.uri)}."
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
        with registry_errors(f"reading the losses of {model.name} v{model.version}", self.uri):
            history = {name: self.client.get_metric_history(model.run_id, name) for name in names}
        return {
            name: [point.value for point in sorted(points, key=lambda point: point.step)]
            for name, points in history.items()
            if points
        }

    def metrics(self, model: ModelVersion) -> dict[str, float]:
        """The final numbers of a version's run, by name.

        Raises:
            RegistryError: the registry could not be reached, or the run is gone.
        """
        with registry_errors(f"reading the metrics of {model.name} v{model.version}", self.uri):
            return dict(self.client.get_run(model.run_id).data.metrics)

    def decision(self, model: ModelVersion) -> dict[str, Any] | None:
        """The promotion gate's decision on a version with its numbers, or None before there is one.

        Raises:
            RegistryError: the registry could not be reached, or the run is gone.
        """
        with registry_errors(f"reading the decision on {model.name} v{model.version}", self.uri):
            root = self.client.get_run(model.run_id).info.artifact_uri
        data = read_file(replace(model, source=root), self.uri, DECISION_FILE)
        try:
            return None if data is None else dict(json.loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            raise RegistryError(
                f"{DECISION_FILE} of {model.name} v{model.version} is damaged "
                f"({type(error).__name__}: {error}): fit the category again."
            ) from None

    def load(self, category: str, alias_or_version: str = CHAMPION) -> Detector:
        """Resolve and load a detector.

        Raises:
            RegistryError: there is no such version, or its files cannot be fetched.
            WeightsError: its files are damaged or of another format.
        """
        return load_detector(self.resolve(category, alias_or_version), self.uri)

    def describe(self, model: ModelVersion) -> dict[str, Any]:
        """The content of a version's ``detector.json``: settings, calibration, lineage.

        Raises:
            RegistryError: it cannot be fetched.
        """
        return describe_detector(model, self.uri)

    def read_file(self, model: ModelVersion, name: str) -> bytes | None:
        """One of a version's files by name, or None where it has none of this name.

        Raises:
            RegistryError: the store cannot be reached.
        """
        return read_file(model, self.uri, name)


def _model_version(version: Any, aliases: Iterable[str]) -> ModelVersion:
    return ModelVersion(
        category=category_of(version.name),
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        source=version.source,
        aliases=tuple(sorted(aliases)),
        tags=dict(version.tags),
        created_at=version.creation_timestamp / 1000.0,
    )
