"""Names in the registry that are interfaces: of models, aliases, tags and files."""

from __future__ import annotations

from nfbmr.errors import RegistryError

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
EXPERIMENT = "nfbmr"

DETECTOR_FOLDER = "detector"
"""The folder of a run's artifacts that a version's files lie in."""

DECISION_FILE = "decision.json"
"""The artifact of a run that holds the promotion gate's decision with its numbers."""

HASH_TAG = "nfbmr.detector_hash"
"""Names the detector's files: registering the same files again finds the version they became."""

KEY_TAG = "nfbmr.key"
"""On a run that records what a job did: what it records, so that the same is recorded once."""

LEDGER_TAG = "nfbmr.promotions_run"
"""On a registered model: the run whose parameters are the ledger of its promotions."""

NOTE_TAG = "mlflow.note.content"
"""What MLflow's pages show as a run's description."""

LEDGER_NOTE = (
    "The parameters of this run are the promotions of a registered model in order: who is champion "
    "is read from here. Please do not delete it."
)
"""The description of the run that keeps promotions."""

_PREFIX = "nfbmr-"
_REFUSED = "/:'\"`"
_LONGEST_CATEGORY = 200


def model_name(category: str) -> str:
    """The registered model of a category."""
    return _PREFIX + category


def check_category(category: str) -> None:
    """Refuse a category that no registered model can be named after, before it is fitted.

    Raises:
        RegistryError: MLflow refuses such a name, or cannot look it up.
    """
    refused = sorted({sign for sign in category if sign in _REFUSED or not sign.isprintable()})
    if refused or len(category) > _LONGEST_CATEGORY:
        why = f"{refused[0]!r} in it" if refused else f"more than {_LONGEST_CATEGORY} signs"
        raise RegistryError(
            f"The category {category[:40]!r} cannot be registered: MLflow takes no name with "
            f"{why}. Rename its folder."
        )


def category_of(name: str) -> str:
    """The category of a registered model."""
    return name.removeprefix(_PREFIX)


def is_ours(name: str) -> bool:
    """Whether a registered model is one of nfbmr's."""
    return name.startswith(_PREFIX)
