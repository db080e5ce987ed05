"""The categories of a data root tonight, and those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nfbmr.data.layouts import discover, discover_all
from nfbmr.data.sample import Sample
from nfbmr.errors import RegistryError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.train.campaign_result import FAILED, CategoryResult

_NAMED = 20


@dataclass(frozen=True)
class Tonight:
    """What there is to train on.

    Attributes:
        samples: the pictures.
        results: rows of categories that should be there and are not.
        versions: of pictures by URI, as they were listed.
    """

    samples: list[Sample]
    results: list[CategoryResult]
    versions: dict[str, str]

    @property
    def categories(self) -> set[str]:
        """All that have pictures or a row."""
        return {s.category for s in self.samples} | {r.category for r in self.results}


def look_for(data: str, layout: str, categories: Sequence[str] | None) -> Tonight:
    """Find the pictures; a category that should be there and is not is a result already.

    That is one that was asked for, and where none was, a folder of pictures in which the layout
    finds no category.

    Args:
        data: data root, a path or ``s3://`` URI.
        layout: name of the layout, or ``auto``.
        categories: which; None for all.

    Raises:
        DataError: there is nothing, or none of the categories.
    """
    found = discover_all(data, layout)
    if categories is None:
        return Tonight(found.samples, _failed(found.left_over), found.versions)
    known = {sample.category for sample in found.samples}
    missing = sorted(set(categories) - known)
    if missing and len(missing) == len(set(categories)):
        discover(data, layout, categories)  # Says what there is, and the nearest name.
    chosen = [sample for sample in found.samples if sample.category in set(categories)]
    names = ", ".join(sorted(known))
    reason = f"there are no pictures of it in {data} now: expected some of {names}"
    reasons = {name: found.left_over.get(name, reason) for name in missing}
    return Tonight(chosen, _failed(reasons), found.versions)


def say_missing(
    registry: Registry, data: str, categories: Collection[str], progress: Progress
) -> None:
    """Say which registered categories have no pictures tonight: a folder may have been renamed.

    Args:
        registry: with the categories of all nights.
        data: data root, for the sentence.
        categories: of which there is something to say anyway.
        progress: told of them; of a registry that cannot be asked, too, which is no failure yet.
    """
    try:
        missing = sorted(set(registry.categories()) - set(categories))
    except RegistryError as error:
        progress.say(f"warning: Whether categories are missing could not be looked up: {error}")
        return
    if missing:
        further = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        progress.say(
            f"warning: {len(missing)} registered categories have no pictures in {data}: "
            f"{', '.join(missing[:_NAMED])}{further}. Their champions stay as they are"
        )


def _failed(reasons: dict[str, str]) -> list[CategoryResult]:
    return [CategoryResult(name, FAILED, decision=reason) for name, reason in reasons.items()]
