"""Whether a version's files lie where runs of nfbmr's experiment keep theirs.

Every user of an MLflow server may make a registered model under a name that none has yet, and give
it a version whose files lie wherever that user can write. Into nfbmr's experiment only those can
write who may.
"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from nfbmr.errors import ForeignVersionError
from nfbmr.model_version import ModelVersion
from nfbmr.registry.names import EXPERIMENT


def lies_in_run(model: ModelVersion, experiment_location: str) -> bool:
    """Whether a version's files lie in its run's folder below the experiment's, as MLflow lays out.

    Args:
        model: the version.
        experiment_location: where MLflow keeps the artifacts of the experiment.
    """
    run_id = model.run_id
    return run_id.isalnum() and is_below(model.source, f"{_plain(experiment_location)}/{run_id}")


def is_below(source: str, folder: str) -> bool:
    """Whether an address is one inside of a folder, whichever way a local path is written.

    Below the folder there may be no step upwards; its own address may have some, as that of a
    registry in ``../work``.
    """
    inside, root = _plain(source), _plain(folder)
    steps = unquote(unquote(inside[len(root) :])).replace("\\", "/").split("/")
    return inside.startswith(f"{root}/") and ".." not in steps


def foreign(model: ModelVersion, experiment_location: str) -> ForeignVersionError:
    """The error for a version that nfbmr has not registered."""
    return ForeignVersionError(
        f"{model.name} version {model.version} was not registered by nfbmr: its files lie at "
        f"{model.source!r}, expected in its run's folder below {experiment_location!r}, where the "
        f"experiment {EXPERIMENT!r} keeps them. Nothing was read. See who made it in MLflow, and "
        "let its owner or an administrator delete the version; of a detector that is yours, "
        "register its folder with `nfbmr models register`.",
        model.version,
    )


def _plain(address: str) -> str:
    """A local path without ``file:``, other addresses as they are; no slash at the end."""
    if address.startswith("file:"):
        path = unquote(address.removeprefix("file:"))
        return posixpath.normpath("/" + path.lstrip("/"))
    return address.rstrip("/")
