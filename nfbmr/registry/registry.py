"""A registry that detectors are registered in and promoted in."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nfbmr.errors import RegistryError, RegistryUnavailableError
from nfbmr.model_version import MetricPoint, ModelVersion
from nfbmr.registry.failures import registry_errors, without_password
from nfbmr.registry.lookup import Lookup
from nfbmr.registry.names import DECISION_FILE, KEY_TAG, model_name
from nfbmr.registry.promotions import BY_HAND, ROLLBACK, Ledger, Promotion
from nfbmr.registry.registering import register_folder

UNCHECKED = "unchecked"
"""``Registry.promote``: whatever the champion is now is replaced."""

_ATTEMPTS = 20


class Registry(Lookup):
    """A connection to an MLflow tracking server and registry.

    Args:
        uri: tracking URI: ``sqlite:///…`` (made where it is missing) or ``http://…``.
    """

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

        The same files again give the version that they became; see ``registering``.

        Args:
            category: the product type.
            folder: with the detector's files; all files in it are logged.
            params: settings of the run.
            metrics: final numbers.
            curves: losses per epoch.
            tags: of run and version.

        Returns:
            The version; a new one carries the alias ``challenger``.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        with registry_errors(f"registering {category!r}", self.uri):
            version = register_folder(
                self.client,
                self._experiment_id(),
                category,
                folder,
                params=params,
                metrics=metrics,
                curves=curves,
                tags=tags,
            )
        return self.resolve(category, version)

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
        with registry_errors(f"recording {name!r}", self.uri):
            experiment_id = self._experiment_id()
            found = self.client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
            if found:
                run_id = str(found[0].info.run_id)
            else:
                run = self.client.create_run(experiment_id, run_name=name, tags={KEY_TAG: key})
                run_id = str(run.info.run_id)
                logged = [
                    Param(each, without_password(str(value))[:6000])
                    for each, value in params.items()
                ]
                for start in range(0, len(logged), 100):
                    self.client.log_batch(run_id, params=logged[start : start + 100])
            points = [Metric(each, float(value), now_ms, 0) for each, value in metrics.items()]
            for start in range(0, len(points), 1000):
                self.client.log_batch(run_id, metrics=points[start : start + 1000])
            for file, text in files.items():
                self.client.log_text(run_id, text, file)
            self.client.set_terminated(run_id)
        return run_id

    def champion(self, category: str) -> ModelVersion | None:
        """The champion by the ledger of promotions, to judge a challenger against.

        Raises:
            RegistryError: the category has no model, or the registry could not be reached.
        """
        with registry_errors(f"looking up the champion of {category!r}", self.uri):
            entries = Ledger(self.client, model_name(category)).settled()
        version = entries[-1].champion if entries else None
        return self.find(category, version) if version is not None else None

    def promotions(self, category: str) -> list[Promotion]:
        """All promotions of a category in order.

        Raises:
            RegistryError: the category has no model, or the registry could not be reached.
        """
        with registry_errors(f"reading the promotions of {category!r}", self.uri):
            return Ledger(self.client, model_name(category)).entries()

    def taken_back(self, category: str) -> ModelVersion | None:
        """The version that the last promotion rolled back, if that is what the last one did.

        Raises:
            RegistryError: the category has no model, or the registry could not be reached.
        """
        promotions = self.promotions(category)
        last = promotions[-1] if promotions else None
        if last is None or last.kind != ROLLBACK or last.replaces is None:
            return None
        return self.find(category, last.replaces)

    def promote(
        self,
        category: str,
        version: str,
        tags: Mapping[str, str],
        *,
        replacing: str | None = UNCHECKED,
        kind: str = BY_HAND,
        reason: str = "",
    ) -> bool:
        """Make a version the champion; the champion so far becomes ``previous``.

        Args:
            category: the product type.
            version: number of the version.
            tags: set on the version.
            replacing: the champion that the decision was made against, or None where there was
                none: if it is another one now, nothing is done.
            kind: who decided, as in ``Promotion``.
            reason: the decision in a sentence.

        Returns:
            Whether it is champion now; always true without ``replacing``.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        with registry_errors(f"promoting {category!r} version {version}", self.uri):
            ledger = Ledger(self.client, model_name(category))
            for key, value in tags.items():
                self.client.set_model_version_tag(
                    ledger.name, version, key, without_password(value)
                )
            for _ in range(_ATTEMPTS):
                entries = ledger.settled()
                champion = entries[-1].champion if entries else None
                if champion == version:
                    return True
                if replacing not in (UNCHECKED, champion):
                    return False
                entry = Promotion(version, champion, kind, without_password(reason))
                if ledger.append(len(entries), entry):
                    ledger.follow()
                    return True
        raise _too_busy(category)

    def challenge(self, category: str) -> None:
        """See that the newest version is ``challenger``, unless it ever was champion.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        with registry_errors(f"naming the challenger of {category!r}", self.uri):
            Ledger(self.client, model_name(category)).challenge()

    def rollback(self, category: str, reason: str = "") -> Promotion:
        """Make the previous champion champion again; the champion so far becomes ``previous``.

        Raises:
            RegistryError: there is no previous champion, or the registry refused.
        """
        for _ in range(_ATTEMPTS):
            with registry_errors(f"rolling {category!r} back", self.uri):
                ledger = Ledger(self.client, model_name(category))
                entries = ledger.settled()
            last = entries[-1] if entries else None
            if last is None or last.replaces is None or not self.find(category, last.replaces):
                raise RegistryError(
                    f"Category {category!r} has no previous champion to roll back to. `nfbmr "
                    f"models list {category}` shows its versions, `nfbmr models promote {category} "
                    "VERSION` makes one champion."
                )
            with registry_errors(f"rolling {category!r} back", self.uri):
                entry = Promotion(last.replaces, last.champion, ROLLBACK, without_password(reason))
                if ledger.append(len(entries), entry):
                    ledger.follow()
                    return entry
        raise _too_busy(category)

    def note_decision(
        self, model: ModelVersion, decision: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Keep a decision of the promotion gate.

        It is ``decision.json`` of the run and tags of the version; its numbers are metrics of the
        run as well, so that nights can be compared in MLflow's charts.

        Raises:
            RegistryError: the registry refused or could not be reached.
        """
        from mlflow.entities import Metric

        with registry_errors(f"noting the decision on {model.name} v{model.version}", self.uri):
            text = without_password(json.dumps(decision, indent=1))
            self.client.log_text(model.run_id, text + "\n", DECISION_FILE)
            now_ms = int(time.time() * 1000)
            points = [
                Metric(f"gate.{name}", float(value), now_ms, 0)
                for name, value in decision.get("numbers", {}).items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            ]
            self.client.log_batch(model.run_id, metrics=points)
            for key, value in tags.items():
                value = without_password(value)
                self.client.set_model_version_tag(model.name, model.version, key, value)
                self.client.set_tag(model.run_id, key, value)


def _too_busy(category: str) -> RegistryUnavailableError:
    return RegistryUnavailableError(
        f"Others keep promoting versions of {category!r}: nothing was changed. Try again."
    )
