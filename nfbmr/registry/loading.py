"""Reading the files of a registered version."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nfbmr import storage
from nfbmr.errors import MissingFilesError, WeightsError
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.model_version import ModelVersion
from nfbmr.registry.failures import registry_errors

_DIRECT = ("file", "s3", "gs", "abfs", "abfss")
"""Stores that are read without asking MLflow."""


def load_detector(model: ModelVersion, registry_uri: str) -> Detector:
    """Load the detector of a concrete version; MLflow is asked only for proxied artifacts.

    Raises:
        MissingFilesError: it has none any more.
        RegistryError: its files cannot be fetched.
        WeightsError: they are damaged or of another format.
    """
    with tempfile.TemporaryDirectory(prefix="nfbmr-detector-") as temporary:
        folder = Path(temporary)
        for name in (JSON_FILE, TENSORS_FILE):
            (folder / name).write_bytes(_required(model, registry_uri, name))
        return Detector.load(folder)


def describe_detector(model: ModelVersion, registry_uri: str) -> dict[str, Any]:
    """The content of a version's ``detector.json``, without its tensors.

    Raises:
        MissingFilesError: it is not there any more.
        RegistryError: it cannot be fetched.
        WeightsError: it is not JSON, or no object.
    """
    try:
        description = json.loads(_required(model, registry_uri, JSON_FILE))
        if not isinstance(description, dict):
            raise ValueError("it holds no object")
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{JSON_FILE} of {model.name} version {model.version} is not JSON ({error}): was it "
            "changed in the store?"
        ) from error
    return description


def _required(model: ModelVersion, registry_uri: str, name: str) -> bytes:
    data = read_file(model, registry_uri, name)
    if data is None:
        raise MissingFilesError(
            f"{model.name} version {model.version} is registered, but its file {name} "
            f"is not at {model.source}: was it removed from the store?"
        )
    return data


def read_file(model: ModelVersion, registry_uri: str, name: str) -> bytes | None:
    """One of a version's files, or None where it has none of this name.

    Raises:
        RegistryError: the store cannot be reached.
    """
    # Proxied artifacts have no host: mlflow-artifacts:/1/...
    scheme = urlsplit(model.source).scheme or "file"
    with registry_errors(f"reading {name} of {model.name} v{model.version}", registry_uri):
        if scheme in _DIRECT:
            return storage.read(storage.join(model.source, name))
        return _through_server(storage.join(model.source, name), registry_uri)


def _through_server(uri: str, registry_uri: str) -> bytes | None:
    """A file that the tracking server hands out."""
    import requests
    from mlflow import artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="nfbmr-artifact-") as folder:
        try:
            path = artifacts.download_artifacts(
                artifact_uri=uri, dst_path=folder, tracking_uri=registry_uri
            )
        except (MlflowException, requests.HTTPError):
            # The message of a file that is not there differs from store to store.
            folder_uri, _, name = uri.rpartition("/")
            found = artifacts.list_artifacts(artifact_uri=folder_uri, tracking_uri=registry_uri)
            if name not in {entry.path.rpartition("/")[2] for entry in found}:
                return None
            raise
        return Path(path).read_bytes()
