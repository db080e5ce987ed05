"""The plan of a scoring run: every picture once, cut into units, models pinned to versions.

Made before any work starts; ``plan_files`` keeps it for every later run of the same command.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from nfbmr.errors import (
    ForeignVersionError,
    MissingFilesError,
    NfbmrError,
    RegistryError,
    WeightsError,
)
from nfbmr.model.detector import JSON_FILE, described_shape
from nfbmr.model.identity import described_backbone
from nfbmr.model_version import ModelVersion
from nfbmr.registry import Registry, describe_detector
from nfbmr.score.planned_units import Units

PICTURES = pa.schema(
    [
        ("image_uri", pa.large_string()),
        ("archive", pa.large_string()),
        ("member", pa.large_string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("version", pa.large_string()),
        ("lookup", pa.large_string()),
        ("category", pa.large_string()),
        ("captured_at", pa.timestamp("ms", tz="UTC")),
        ("problem", pa.large_string()),
    ]
)
"""See ``PlannedPicture``. Text is 64-bit, so that columns of any length can be sorted."""

_LOOK_UPS = 8


@dataclass(frozen=True, slots=True)
class PlannedPicture:
    """One picture to score.

    Attributes:
        image_uri: its unique name.
        archive: what it was found in.
        member: its name in there.
        offset: of its bytes in the archive, where they can be read by range.
        length: of its bytes, where known; see ``ArchiveEntry``.
        version: of the file that holds its bytes, when it was listed.
        category: which detector scores it; empty if none is known.
        problem: why it cannot be scored, known since listing.
        lookup: see ``ArchiveEntry``.
        captured_at: when it was taken, where a manifest or a Parquet column says it.
    """

    image_uri: str
    archive: str
    member: str
    offset: int | None
    length: int | None
    version: str | None
    category: str
    problem: str | None = None
    lookup: str | None = None
    captured_at: datetime.datetime | None = None


@dataclass(frozen=True)
class PlannedModel:
    """The pinned model of one category.

    Attributes:
        version: its concrete version.
        backbone: identity of the backbone that it was fitted on.
        weights: where that backbone's weights were then.
        feature_shape: (C, H, W) of its features.
    """

    version: ModelVersion
    backbone: dict[str, Any]
    weights: str
    feature_shape: tuple[int, int, int]

    @property
    def image_size_px(self) -> int:
        """Height and width to which pictures are resized."""
        return int(self.backbone["image_size_px"])

    @property
    def resampling(self) -> str:
        """How they are resized."""
        return str(self.backbone["resampling"])


@dataclass(frozen=True)
class Plan:
    """Everything a run does, fixed before it starts.

    Attributes:
        run_id: of the scoring run.
        request: what was asked for: sources, category rule, model alias, settings that matter.
        models: the pinned model per category.
        model_errors: why the other categories have none.
        units: all of them, in the order of the rows.
    """

    run_id: str
    request: dict[str, Any]
    models: dict[str, PlannedModel]
    model_errors: dict[str, str]
    units: Units

    @property
    def pictures(self) -> int:
        """How many there are."""
        return self.units.pictures

    def counts(self) -> dict[str, int]:
        """Pictures per category."""
        return self.units.pictures_by_category()


def pictures_table(pictures: Iterable[PlannedPicture]) -> pa.Table:
    """Pictures as a plan takes them."""
    return pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=PICTURES)


def make_plan(
    run_id: str, units: Units, request: Mapping[str, Any], registry: Registry, alias: str
) -> Plan:
    """Pin the models of the units' categories.

    Args:
        run_id: of the run.
        units: all of them.
        request: see ``Plan``.
        registry: where models are looked up, once.
        alias: alias or version of the models.

    Raises:
        RegistryError: not one category has a model, or the registry is out of reach.
        WeightsError: the only models that there are have a damaged ``detector.json``.
    """
    categories = sorted(filter(None, units.table.column("category").unique().to_pylist()))

    def pinned(category: str) -> PlannedModel | NfbmrError | None:
        try:
            version = registry.find(category, alias)
            return None if version is None else _planned_model(version, registry.uri)
        except (WeightsError, ForeignVersionError, MissingFilesError) as error:
            return error  # The others can be scored.

    # MLflow opens its stores on first use, which is no matter for several threads at once.
    first = {category: pinned(category) for category in categories[:1]}
    with ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="nfbmr-models") as pool:
        others = categories[1:]
        found = first | dict(zip(others, pool.map(pinned, others), strict=True))
    models = {c: model for c, model in found.items() if isinstance(model, PlannedModel)}
    unusable = {c: error for c, error in found.items() if isinstance(error, NfbmrError)}
    errors = {
        category: str(unusable[category])
        if category in unusable
        else f"category {category!r} has no model with alias {alias!r}"
        for category in categories
        if category not in models
    }
    if not models:
        for error in unusable.values():
            raise error
        # Says what there is, and the nearest name.
        registry.resolve(next(iter(errors), ""), alias)
        raise RegistryError("No picture's category has a model.")
    return Plan(run_id, dict(request), models, errors, units)


def _planned_model(version: ModelVersion, registry_uri: str) -> PlannedModel:
    """From the description alone: the tensors of a thousand models take minutes to fetch."""
    described = describe_detector(version, registry_uri)
    who = f"{JSON_FILE} of {version.name} version {version.version}"
    if described.get("category") != version.category:
        raise WeightsError(
            f"{who} is that of a detector for {described.get('category')!r}, not for "
            f"{version.category!r}: give the alias to a version that was fitted for it."
        )
    shape = described_shape(described, who)
    backbone, weights = described_backbone(described, who)
    return PlannedModel(version, backbone, weights, shape)
