"""From a folder with a detector's files to the next version of a category.

Every step may be done again: the run and the version are found by the hash of the detector's
files, points of curves carry the run's start as their time, parameters and files are overwritten
with themselves. So a registration that was cut off at any place is finished by doing it again, and
a finished one gives the version that there is.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfbmr import storage
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE
from nfbmr.model_version import MetricPoint
from nfbmr.registry.failures import without_password
from nfbmr.registry.names import (
    DETECTOR_FOLDER,
    HASH_TAG,
    LEDGER_NOTE,
    LEDGER_TAG,
    NOTE_TAG,
    model_name,
)
from nfbmr.registry.packaging import write_model_files
from nfbmr.registry.promotions import Ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LONGEST_PARAM = 6000
_METRICS_AT_ONCE = 1000
_OTHERS_AT_ONCE = 100


def detector_hash(folder: Path) -> str:
    """SHA-256 of the detector's two files, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in (JSON_FILE, TENSORS_FILE):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def register_folder(
    client: MlflowClient,
    experiment_id: str,
    category: str,
    folder: Path,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Iterable[MetricPoint],
    tags: Mapping[str, str],
) -> str:
    """Log a run with the folder's files and make it the category's next version.

    Args:
        client: MLflow's.
        experiment_id: where the run goes.
        category: the product type.
        folder: with the detector's files; all files in it are logged.
        params: settings of the run.
        metrics: final numbers.
        curves: losses per epoch.
        tags: of run and version.

    Returns:
        The version's number. A new version has the alias ``challenger``.
    """
    name = model_name(category)
    fingerprint = detector_hash(folder)
    known = _version_of(client, name, fingerprint)
    if known is not None:
        Ledger(client, name).challenge()
        return known
    tags = {key: without_password(value) for key, value in tags.items()} | {HASH_TAG: fingerprint}
    run = _run_of(client, experiment_id, category, fingerprint)
    _log_numbers(client, run, params, metrics, curves, tags)
    _log_files(client, run.info.run_id, folder)
    client.set_terminated(run.info.run_id)
    _ensure_model(client, experiment_id, category)
    version = client.create_model_version(
        name,
        source=storage.join(run.info.artifact_uri, DETECTOR_FOLDER),
        run_id=run.info.run_id,
        tags=tags,
    )
    Ledger(client, name).challenge()
    return str(version.version)


def _version_of(client: MlflowClient, name: str, fingerprint: str) -> str | None:
    query = f"name='{name}' and tags.`{HASH_TAG}`='{fingerprint}'"
    found = [int(version.version) for version in client.search_model_versions(query)]
    return str(min(found)) if found else None


def _run_of(client: MlflowClient, experiment_id: str, category: str, fingerprint: str) -> Run:
    """The run of an earlier attempt, or a new one."""
    query = f"tags.`{HASH_TAG}`='{fingerprint}'"
    found = client.search_runs([experiment_id], query, max_results=1)
    if found:
        return found[0]
    return client.create_run(experiment_id, run_name=category, tags={HASH_TAG: fingerprint})


def _log_numbers(
    client: MlflowClient,
    run: Run,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Iterable[MetricPoint],
    tags: Mapping[str, str],
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run_id, start_ms = run.info.run_id, run.info.start_time
    points = [Metric(p.name, p.value, start_ms, p.step) for p in curves]
    points += [Metric(name, value, start_ms, 0) for name, value in metrics.items()]
    for start in range(0, len(points), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=points[start : start + _METRICS_AT_ONCE])
    texts = {name: without_password(str(value))[:_LONGEST_PARAM] for name, value in params.items()}
    listed = [Param(name, text) for name, text in texts.items()]
    for start in range(0, len(listed), _OTHERS_AT_ONCE):
        client.log_batch(run_id, params=listed[start : start + _OTHERS_AT_ONCE])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _log_files(client: MlflowClient, run_id: str, folder: Path) -> None:
    client.log_artifacts(run_id, str(folder), DETECTOR_FOLDER)
    with tempfile.TemporaryDirectory(prefix="nfbmr-model-") as temporary:
        write_model_files(Path(temporary), run_id)
        client.log_artifacts(run_id, temporary, DETECTOR_FOLDER)


def _ensure_model(client: MlflowClient, experiment_id: str, category: str) -> None:
    """Make the registered model where it is missing, with the run that keeps its promotions.

    The model is made together with the tag that names the run, so that all processes use one.
    """
    from mlflow.exceptions import MlflowException

    name = model_name(category)
    if _ledger_run(client, name) is not None:
        return
    note = {NOTE_TAG: LEDGER_NOTE}
    ledger = client.create_run(experiment_id, run_name=f"{category} promotions", tags=note)
    client.set_terminated(ledger.info.run_id)
    try:
        client.create_registered_model(name, tags={LEDGER_TAG: ledger.info.run_id})
    except MlflowException:
        # The answer alone may have been lost: then the model is there, and names this run.
        named = _ledger_run(client, name)
        if named != ledger.info.run_id:
            client.delete_run(ledger.info.run_id)
        if named is None:
            raise


def _ledger_run(client: MlflowClient, name: str) -> str | None:
    """The run that a registered model names; empty for an old one, None where there is no model."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_registered_model(name).tags.get(LEDGER_TAG, ""))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
