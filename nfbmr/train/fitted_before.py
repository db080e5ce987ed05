"""The versions that a fit would come out as once more: champion, rolled back, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from nfbmr import __version__
from nfbmr.config import Config
from nfbmr.errors import ConfigError, ForeignVersionError, MissingFilesError, WeightsError
from nfbmr.gate_settings import GateSettings
from nfbmr.model_version import ModelVersion
from nfbmr.registry import CHALLENGER, Registry
from nfbmr.train.evidence import EVIDENCE_FILE, Evidence
from nfbmr.train.finished import DATA_TAG, SETTINGS_TAG
from nfbmr.train.gate import AGAINST_TAG, NOBODY, REFUSED, VERDICT_TAG

_RELEASE_TAG = "nfbmr.version"
_TIME_TAG = "nfbmr.fitted_at"
_UNREADABLE = (
    ConfigError,
    MissingFilesError,
    WeightsError,
    ValueError,
    TypeError,
    KeyError,
    RecursionError,
)


@dataclass(frozen=True)
class FittedBefore:
    """A version with tonight's settings, after which there is no use in the same fit.

    Attributes:
        version: its number.
        data: fingerprint of its pictures.
        decision: why the category is left out where the pictures are the same.
        labelled: of a version that the gate refused, the labelled pictures that it was judged by:
            whether each is defective, by its name in the feature cache. None for other versions.
    """

    version: str
    data: str
    decision: str
    labelled: dict[str, bool] | None = None


def fitted_before(
    category: str, settings: str, registry: Registry, config: Config
) -> Iterator[FittedBefore]:
    """The versions of a category, each looked up when it is asked for: the champion comes first.

    Args:
        category: whose.
        settings: fingerprint of tonight's.
        registry: with the versions.
        config: all settings.

    Raises:
        RegistryError: the registry, or what it has of this category, is out of reach.
    """

    def found(version: ModelVersion | None) -> bool:
        return version is not None and version.tags.get(SETTINGS_TAG) == settings

    patience_s = config.run.registry_patience_s
    champion = registry.patiently(partial(registry.find, category), patience_s)
    if champion is not None:
        loads = partial(_can_be_loaded, registry, champion)
        if found(champion) and registry.patiently(loads, patience_s):
            why = "is champion: it was fitted on the same pictures with the same settings"
            yield _of(champion, f"version {champion.version} {why}")
        other = registry.patiently(partial(registry.taken_back, category), patience_s)
        if other is not None and found(other):
            why = "was fitted on the same pictures with the same settings and was rolled back"
            yield _of(
                other, f"version {other.version} {why}; version {champion.version} is champion"
            )
    challenger = registry.patiently(partial(registry.find, category, CHALLENGER), patience_s)
    if challenger is None or not found(challenger):
        return
    if not _is_refused(challenger, champion):
        return
    evidence = registry.patiently(partial(_judged_by, registry, challenger, config), patience_s)
    if evidence is not None:
        labelled = {name: name in evidence.defective for name in evidence.labelled}
        yield _of(challenger, _refusal(challenger), labelled)


def _can_be_loaded(registry: Registry, champion: ModelVersion) -> bool:
    """What is gone or damaged scores nothing, however equal a new fit would be."""
    try:
        registry.load(champion.category, champion.version)
    except (WeightsError, MissingFilesError, ForeignVersionError):
        return False
    return True


def _of(
    version: ModelVersion, decision: str, labelled: dict[str, bool] | None = None
) -> FittedBefore:
    return FittedBefore(version.version, version.tags.get(DATA_TAG, ""), decision, labelled)


def _is_refused(version: ModelVersion, champion: ModelVersion | None) -> bool:
    """Whether the gate of this release refused a version against this champion, not for its age."""
    against = NOBODY if champion is None else champion.version
    wanted = {VERDICT_TAG: REFUSED, AGAINST_TAG: against, _RELEASE_TAG: __version__}
    is_older = champion is not None and _fitted_at(version) < _fitted_at(champion)
    return not is_older and all(version.tags.get(tag) == value for tag, value in wanted.items())


def _fitted_at(version: ModelVersion) -> str:
    return version.tags.get(_TIME_TAG, "")


def _judged_by(registry: Registry, version: ModelVersion, config: Config) -> Evidence | None:
    """What a version was judged by; None where that cannot be read or the gate asked otherwise."""
    try:
        gate = registry.describe(version)["lineage"]["settings"]["gate"]
        text = registry.read_file(version, EVIDENCE_FILE)
        if text is None or GateSettings(**gate) != config.gate:
            return None
        return Evidence.from_json(text)
    except _UNREADABLE:
        return None


def _refusal(version: ModelVersion) -> str:
    reason = version.tags.get("nfbmr.decision", "")
    return (
        f"version {version.version} was fitted on the same pictures with the same settings and the "
        f"gate refused it ({reason}); `nfbmr models promote` decides otherwise"
    )
