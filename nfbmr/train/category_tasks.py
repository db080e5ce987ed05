"""From the pictures of a data root to one task per category that can be fitted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nfbmr.config import Config
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError, RegistryError
from nfbmr.registry import check_category
from nfbmr.train.campaign_result import FAILED, CategoryResult
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.code_version import code_version
from nfbmr.train.entry_names import entry_of_picture
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.fingerprints import data_fingerprint, settings_fingerprint
from nfbmr.train.split import (
    Split,
    labelled_pictures,
    needed_to_calibrate,
    split_normals,
    topped_up,
)

SYNTHETIC_DEFECTS = 1
"""Synthetic defects per held-out picture, for the choice of the aggregate and for the gate."""


@dataclass(frozen=True)
class Preparation:
    """What all tasks of a campaign are made from.

    Attributes:
        config: all settings.
        cache_root: of the feature cache.
        index: the pictures' features.
    """

    config: Config
    cache_root: str
    index: FeatureIndex


def split_categories(
    samples: Sequence[Sample], config: Config
) -> tuple[dict[str, Split], list[CategoryResult]]:
    """Split every category; those that cannot be are results already."""
    splits: dict[str, Split] = {}
    failures: list[CategoryResult] = []
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    for name, own in sorted(by_category.items()):
        try:
            check_category(name)
            split = split_normals(own, name, config.calibration, config.fit.seed)
            labelled = labelled_pictures(own, name, config.gate)
            splits[name] = replace(split, labelled=labelled)
        except (DataError, RegistryError) as error:
            failures.append(CategoryResult(name, FAILED, decision=str(error)))
    return splits, failures


def pictures_of(split: Split) -> list[Picture]:
    """All pictures whose features a category needs."""
    labelled = [Picture(sample.uri) for sample in split.labelled]
    return training_pictures(split) + labelled + _synthetic(split)


def training_pictures(split: Split) -> list[Picture]:
    """Those that are fitted on and those that calibrate."""
    return [Picture(sample.uri) for sample in split.pictures]


def _synthetic(split: Split) -> list[Picture]:
    """Also where the aggregate is chosen already: the gate compares versions by them."""
    variants = range(1, SYNTHETIC_DEFECTS + 1)
    return [Picture(sample.uri, variant) for sample in split.held_out for variant in variants]


def make_tasks(
    splits: Mapping[str, Split], preparation: Preparation
) -> tuple[list[CategoryTask], list[CategoryResult]]:
    """A task per category; those with too many unreadable pictures are results already."""
    tasks: list[CategoryTask] = []
    failures: list[CategoryResult] = []
    budget = preparation.config.run.training_failure_budget
    for name, split in splits.items():
        unreadable = _unreadable(split, preparation.index)
        total = len(split.pictures)
        if len(unreadable) <= budget * total:
            try:
                calibration = preparation.config.calibration
                whole = topped_up(split, unreadable, calibration)
                data = data_fingerprint_of(split, preparation.index.names)
                tasks.append(_task(name, whole, preparation, data))
                continue
            except DataError as error:
                reason = str(error)
        else:
            first = next(iter(unreadable.items()))
            reason = (
                f"{len(unreadable)} of {total} training pictures of {name!r} cannot be read, more "
                f"than run.training_failure_budget = {budget:g} allows; first: {first[0]} "
                f"({first[1]})"
            )
        failures.append(CategoryResult(name, FAILED, unreadable=len(unreadable), decision=reason))
    return tasks, failures


def _unreadable(split: Split, index: FeatureIndex) -> dict[str, str]:
    """Why training pictures cannot be read, by URI."""
    return {p.uri: index.errors[p] for p in training_pictures(split) if p in index.errors}


def data_fingerprint_of(split: Split, names: Mapping[Picture, str]) -> str:
    """Of a category's training pictures by their content.

    Args:
        split: the category's pictures.
        names: of pictures, from their content; those that could not be fetched have none.
    """

    def found(samples: Sequence[Sample]) -> list[str]:
        return [names[p] for p in (Picture(sample.uri) for sample in samples) if p in names]

    return data_fingerprint(found(split.fit), found(split.held_out))


def _task(name: str, split: Split, preparation: Preparation, data: str) -> CategoryTask:
    index, config = preparation.index, preparation.config

    def entries(pictures: Sequence[Picture]) -> list[str]:
        return [index.entries[p] for p in pictures if p in index.entries]

    # By content: a copy under another name must not judge what was learned from it.
    held_out = dict.fromkeys(entries([Picture(sample.uri) for sample in split.held_out]))
    fit = dict.fromkeys(entries([Picture(sample.uri) for sample in split.fit]))
    held_out_entries = list(held_out)
    fit_entries = [entry for entry in fit if split.folds or entry not in held_out]
    # Each is a read of its own: the file may have changed, or been readable only once, in between.
    synthetic = [e for e in entries(_synthetic(split)) if entry_of_picture(e) in held_out]
    needed = needed_to_calibrate(config.calibration)
    if len(held_out_entries) < needed or not fit_entries:
        raise DataError(
            f"{len(held_out_entries)} different pictures of {name!r} calibrate, the others are "
            f"copies. A false-alarm rate of {config.calibration.false_alarm_rate:g} needs {needed}:"
            " give more normal pictures, or ask for a higher calibration.false_alarm_rate."
        )
    return CategoryTask(
        category=name,
        config=config,
        cache_root=preparation.cache_root,
        backbone_key=index.backbone_key,
        backbone=index.backbone,
        fit_entries=fit_entries,
        held_out_entries=held_out_entries,
        synthetic_entries=synthetic,
        folds=split.folds,
        lineage={
            "data_fingerprint": data,
            "code_version": code_version(),
            "settings_fingerprint": settings_fingerprint(config, index.backbone),
            "pictures_fitted": len(fit_entries),
            "pictures_held_out": len(held_out_entries),
            "pictures_unreadable": len(_unreadable(split, index)),
            "fitted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        labelled_entries=_labelled_entries(split, index, {*fit_entries, *held_out_entries}),
        uris={index.entries[p]: p.uri for p in pictures_of(split) if p in index.entries},
    )


def _labelled_entries(split: Split, index: FeatureIndex, trained_on: set[str]) -> dict[str, bool]:
    """Readable labelled test pictures that are not among the training pictures, too."""
    found = {index.entries.get(Picture(s.uri)): s.is_defective for s in split.labelled}
    return {
        entry: defective
        for entry, defective in found.items()
        if entry is not None and entry not in trained_on
    }
