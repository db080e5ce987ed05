"""MLflow: registering detectors, promoting them, finding and loading them.

The only package that imports mlflow, and only when it is needed: scoring actors that read detectors
straight from their store never pay for it.
"""

from nfbmr.registry.connection import default_uri, embedded_uri
from nfbmr.registry.failures import without_password
from nfbmr.registry.loading import describe_detector, load_detector
from nfbmr.registry.names import (
    CHALLENGER,
    CHAMPION,
    DECISION_FILE,
    EXPERIMENT,
    PREVIOUS,
    check_category,
)
from nfbmr.registry.promotions import BY_GATE, BY_HAND, ROLLBACK, Promotion
from nfbmr.registry.registering import detector_hash
from nfbmr.registry.registry import Registry

__all__ = [
    "BY_GATE",
    "BY_HAND",
    "CHALLENGER",
    "CHAMPION",
    "DECISION_FILE",
    "EXPERIMENT",
    "PREVIOUS",
    "ROLLBACK",
    "Promotion",
    "Registry",
    "check_category",
    "default_uri",
    "describe_detector",
    "detector_hash",
    "embedded_uri",
    "load_detector",
    "without_password",
]
