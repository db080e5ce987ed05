"""Looking versions up: which there are, what stands behind an alias, what they hold."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nfbmr.errors import RegistryError
from nfbmr.model.detector import Detector
from nfbmr.model_version import ModelVersion
from nfbmr.registry.connection import Connection
from nfbmr.registry.failures import registry_errors, without_password
from nfbmr.registry.loading import describe_detector, load_detector, read_file
from nfbmr.registry.names import CHAMPION, DECISION_FILE, category_of, is_ours, model_name
from nfbmr.registry.paging import pages


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

    def _versions(self, name: str) -> list[ModelVersion]:
        aliases: dict[str, list[str]] = {}
        for alias, version in self.client.get_registered_model(name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        found = pages(self.client.search_model_versions, filter_string=f"name='{name}'")
        return [_model_version(v, aliases.get(str(v.version), [])) for v in found]

    def find(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        """The version with this alias or number, or None."""
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
