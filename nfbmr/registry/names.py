"""Names in the registry that are interfaces: of models, aliases, tags and files."""

from __future__ import annotations

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

_PREFIX = "nfbmr-"


def model_name(category: str) -> str:
    """The registered model of a category."""
    return _PREFIX + category


def category_of(name: str) -> str:
    """The category of a registered model."""
    return name.removeprefix(_PREFIX)


def is_ours(name: str) -> bool:
    """Whether a registered model is one of nfbmr's."""
    return name.startswith(_PREFIX)
