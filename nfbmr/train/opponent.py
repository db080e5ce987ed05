"""The champion's scores of the pictures that a challenger scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nfbmr.errors import (
    STORE_FAULTS,
    FeaturesError,
    ForeignVersionError,
    MissingFilesError,
    NfbmrError,
    RegistryUnavailableError,
    StoreError,
    WeightsError,
)
from nfbmr.model.backbone import identity_key
from nfbmr.model.detector import Detector
from nfbmr.model.scoring import image_scores
from nfbmr.model_version import ModelVersion
from nfbmr.registry import Registry
from nfbmr.train.comparison import Opponent
from nfbmr.train.entry_names import entry_of_picture
from nfbmr.train.evidence import EVIDENCE_FILE, Evidence
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.held_out_maps import anomaly_maps


def opponent_of(category: str, challenger: Evidence, registry: Registry) -> Opponent | None:
    """The champion with its scores of the same pictures; None where there is none.

    One whose files are gone, damaged or not nfbmr's own has no scores and says why: nobody can
    score with it, so it must not keep every later night from being champion.

    Args:
        category: the product type.
        challenger: its scores.
        registry: with the champion.

    Raises:
        RegistryError: the champion cannot be looked up, or its files cannot be fetched now.
    """
    try:
        champion = registry.champion(category)
    except ForeignVersionError as error:
        return _unusable(error.version, error)
    if champion is None:
        return None
    try:
        return _compared(champion, challenger, registry)
    except (WeightsError, MissingFilesError, ForeignVersionError) as error:
        return _unusable(champion.version, error)


def _unusable(version: str, error: NfbmrError) -> Opponent:
    return Opponent(version, {}, 0.0, "", "nothing", unusable=str(error))


def _compared(champion: ModelVersion, challenger: Evidence, registry: Registry) -> Opponent:
    """The champion's scores of the same pictures, none of which it was fitted on.

    What it recorded when it was fitted counts first. The other pictures it scores now, from the
    features in the cache, where its backbone is the challenger's and the cache can be reached.
    """
    detector = registry.load(champion.category, champion.version)
    data = registry.read_file(champion, EVIDENCE_FILE)
    own = _evidence(data)
    recorded = {name: own.scores[name] for name in challenger.scores if name in own.scores}
    fitted = set(own.fitted)
    others = [
        n for n in challenger.scores if n not in recorded and entry_of_picture(n) not in fitted
    ]
    scored = _scored(detector, challenger, others)
    return Opponent(
        champion.version,
        {**recorded, **scored},
        detector.threshold,
        champion.tags.get("nfbmr.fitted_at", ""),
        f"{len(recorded)} scores that the champion recorded, {len(scored)} that it gave now",
        frozenset(own.held_out),
    )


def _evidence(data: bytes | None) -> Evidence:
    """What a champion recorded; nothing where that is of another version of nfbmr, or damaged."""
    try:
        return Evidence(held_out={}) if data is None else Evidence.from_json(data)
    except (ValueError, KeyError, TypeError):
        return Evidence(held_out={})


@torch.inference_mode()
def _scored(detector: Detector, challenger: Evidence, names: Sequence[str]) -> dict[str, float]:
    """Scores from the cached features; none where backbone or cache are others."""
    if not names or not challenger.cache_root:
        return {}
    if identity_key(detector.backbone) != challenger.backbone_key:
        return {}
    cache = FeatureCache(challenger.cache_root, challenger.backbone_key)
    try:
        maps_NHW = anomaly_maps(detector.heads, cache.load(list(names)))
    except FeaturesError:
        return {}
    except (*STORE_FAULTS, StoreError) as error:
        # A passing fault must not decide: the judgement is made again, or the detector waits.
        raise RegistryUnavailableError(
            f"The champion of {detector.category!r} cannot be compared while the feature cache "
            f"fails: {type(error).__name__}: {error}."
        ) from error
    return dict(zip(names, image_scores(maps_NHW, detector.aggregate).tolist(), strict=True))
