"""From a fitted detector to a registered, judged and perhaps promoted version."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nfbmr import storage, store_folders
from nfbmr.errors import (
    STORE_FAULTS,
    ForeignVersionError,
    RegistryError,
    RegistryUnavailableError,
    StoreError,
)
from nfbmr.model_version import ModelVersion
from nfbmr.registry import BY_GATE, Registry, detector_hash
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.finished import FINGERPRINT_TAGS, FinishedFit
from nfbmr.train.fit import EpochLosses
from nfbmr.train.gate import Decision, decide
from nfbmr.train.opponent import opponent_of
from nfbmr.train.ray_fit import Fitted

_ATTEMPTS = 20


def register(
    fitted: Fitted, task: CategoryTask, registry: Registry, keep_in: str
) -> tuple[ModelVersion, Decision]:
    """Register a fitted detector as challenger, and promote it where the gate says so.

    A registry that is out of reach is tried again for ``run.registry_patience_s``. After that, or
    where it refuses, the finished detector is kept.

    Args:
        fitted: the fit.
        task: what it was made from.
        registry: where it goes.
        keep_in: folder or ``s3://`` prefix for a detector that cannot be registered.

    Raises:
        RegistryError: it could not be registered or judged; the message says where it is kept and
            which command registers it later.
        WeightsError: the worker's files are damaged.
    """
    with fitted.checkpoint.as_directory() as folder:
        fit = FinishedFit.load(Path(folder))
        try:
            registered = register_finished(fit, registry, task.config.run.registry_patience_s)
        except RegistryError as error:
            kept = keep(fit, keep_in)
            raise type(error)(
                f"{error} The finished detector of {fit.category!r} is kept in {kept}. Once the "
                f"registry is back, register it with: nfbmr models register {shlex.quote(kept)} "
                f"--registry {shlex.quote(registry.argument)}"
            ) from None
        # An earlier attempt may have kept it. That it stays where a store fails harms nobody.
        with suppress(*STORE_FAULTS, StoreError):
            store_folders.remove_tree(_kept_folder(fit, keep_in))
        return registered


def register_finished(
    fit: FinishedFit, registry: Registry, patience_s: float
) -> tuple[ModelVersion, Decision]:
    """Register and judge a finished fit; doing it again changes nothing.

    Args:
        fit: from a worker or from where ``keep`` put it.
        registry: where it goes.
        patience_s: how long a registry may be out of reach.

    Raises:
        RegistryError: the registry refused or could not be reached.
    """
    version = registry.patiently(
        lambda: registry.register(
            fit.category,
            fit.folder,
            params=fit.params(),
            metrics=fit.metrics(),
            curves=fit.curves(),
            tags=fit.tags(),
        ),
        patience_s,
    )
    decision = registry.patiently(lambda: _judge(fit, version, registry), patience_s)
    return version, decision


def _judge(fit: FinishedFit, version: ModelVersion, registry: Registry) -> Decision:
    """Decide against the champion; where another one was promoted meanwhile, against that."""
    promotions = registry.promotions(fit.category)
    for promotion in promotions:
        if promotion.champion == version.version:
            with suppress(ForeignVersionError):
                registry.champion(fit.category)  # Brings aliases in line that were left behind.
            if promotions[-1].champion == version.version:
                return Decision(True, promotion.reason, against=promotion.replaces)
            reason = f"it was champion ({promotion.reason}) until somebody promoted another version"
            return Decision(False, reason, against=promotions[-1].champion)
    for _ in range(_ATTEMPTS):
        opponent = opponent_of(fit.category, fit.evidence, registry)
        decision = decide(
            fit.evidence,
            fit.fitted_at,
            fit.false_alarm_rate,
            opponent,
            fit.gate,
            _taken_back(fit, registry),
        )
        registry.note_decision(version, decision.as_dict(), decision.tags())
        if not decision.promote:
            registry.challenge(fit.category)
            return decision
        if registry.promote(
            fit.category,
            version.version,
            {},
            replacing=opponent.version if opponent else None,
            kind=BY_GATE,
            reason=decision.reason,
        ):
            return decision
    raise RegistryUnavailableError(
        f"The champion of {fit.category!r} changed {_ATTEMPTS} times while version "
        f"{version.version} was judged against it."
    )


def _taken_back(fit: FinishedFit, registry: Registry) -> str | None:
    """The version that the last promotion rolled back, where a fit is that one over again."""
    try:
        version = registry.taken_back(fit.category)
    except ForeignVersionError:  # Which was not made by any fit.
        return None
    if version is None:
        return None
    own = fit.tags()
    is_same = all(own.get(tag) and own[tag] == version.tags.get(tag) for tag in FINGERPRINT_TAGS)
    return version.version if is_same else None


def keep(fit: FinishedFit, keep_in: str) -> str:
    """Copy a finished fit to where it can be registered from later; returns the folder."""
    kept = _kept_folder(fit, keep_in)
    for path in sorted(fit.folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(fit.folder).as_posix()
            storage.write_atomically(storage.join(kept, name), path.read_bytes())
    return kept


def _kept_folder(fit: FinishedFit, keep_in: str) -> str:
    return storage.join(keep_in, f"{fit.category}-{detector_hash(fit.folder)[:12]}")


def last_losses(epochs: Iterable[EpochLosses]) -> dict[str, float]:
    """Of the last epochs, by name; ``mapper_loss`` is source plus target."""
    last = {name: value for epoch in epochs for name, value in epoch.losses.items()}
    if "source_loss" in last:
        last["mapper_loss"] = last["source_loss"] + last["target_loss"]
    return last
