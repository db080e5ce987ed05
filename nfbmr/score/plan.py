"""The plan of a scoring run: every picture once, cut into units, models pinned to versions.

Made before any work starts; ``plan_files`` keeps it for every later run of the same command.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from nfbmr.errors import RegistryError
from nfbmr.model_version import ModelVersion
from nfbmr.registry import Registry, load_detector

_UNITS_PER_GROUP = 32

PICTURES = pa.schema(
    [
        ("image_uri", pa.string()),
        ("archive", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("version", pa.string()),
        ("category", pa.string()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class PlannedPicture:
    """One picture to score.

    Attributes:
        image_uri: its unique name.
        archive: what it was found in.
        member: its name in there.
        offset: of its bytes in the archive, where they can be read by range.
        length: of its bytes, where known.
        version: of the file that holds its bytes, when it was listed.
        category: which detector scores it; empty if none is known.
        problem: why it cannot be scored, known since listing.
    """

    image_uri: str
    archive: str
    member: str
    offset: int | None
    length: int | None
    version: str | None
    category: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """The smallest piece of work that is committed.

    Attributes:
        name: made of what it holds.
        category: of all its pictures.
        row_group: of the plan's pictures.
        start: of its first picture in the row group.
        count: of its pictures.
    """

    name: str
    category: str
    row_group: int
    start: int
    count: int


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
    units: list[PlannedUnit]

    @property
    def pictures(self) -> int:
        """How many there are."""
        return sum(unit.count for unit in self.units)

    def counts(self) -> dict[str, int]:
        """Pictures per category."""
        counts: dict[str, int] = {}
        for unit in self.units:
            counts[unit.category] = counts.get(unit.category, 0) + unit.count
        return counts


def pictures_table(pictures: Iterable[PlannedPicture]) -> pa.Table:
    """Pictures as a plan takes them."""
    return pa.Table.from_pylist([asdict(picture) for picture in pictures], schema=PICTURES)


def make_plan(
    pictures: pa.Table,
    request: Mapping[str, Any],
    registry: Registry,
    alias: str,
    unit_size: int,
) -> tuple[Plan, pa.Table]:
    """Pin the models and cut the pictures into units.

    Args:
        pictures: rows of ``PICTURES``.
        request: see ``Plan``.
        registry: where models are looked up, once.
        alias: alias or version of the models.
        unit_size: pictures per unit at most.

    Returns:
        The plan, and the pictures in its order: what ``plan_files.save_plan`` writes.

    Raises:
        RegistryError: not one category has a model, or the registry is out of reach.
    """
    categories = sorted(name for name in pictures.column("category").unique().to_pylist() if name)
    models: dict[str, PlannedModel] = {}
    errors: dict[str, str] = {}
    for category in categories:
        version = registry.find(category, alias)
        if version is None:
            errors[category] = f"category {category!r} has no model with alias {alias!r}"
            continue
        models[category] = _planned_model(version, registry.uri)
    if not models:
        # Says what there is, and the nearest name.
        registry.resolve(next(iter(errors), ""), alias)
        raise RegistryError("No picture's category has a model.")
    ordered = pictures.sort_by(
        [(name, "ascending") for name in ("category", "archive", "offset", "image_uri")]
    ).combine_chunks()
    plan = Plan(uuid.uuid4().hex, dict(request), models, errors, cut_units(ordered, unit_size))
    return plan, ordered


def _planned_model(version: ModelVersion, registry_uri: str) -> PlannedModel:
    detector = load_detector(version, registry_uri)
    return PlannedModel(version, detector.backbone, detector.weights, detector.heads.shape)


def cut_units(ordered: pa.Table, unit_size: int) -> list[PlannedUnit]:
    """Units of at most so many pictures, each of one category.

    Args:
        ordered: rows of ``PICTURES``, sorted by category.
        unit_size: pictures per unit at most.
    """
    encoded = pa.compute.run_end_encode(ordered.column("category").combine_chunks())
    units: list[PlannedUnit] = []
    first = 0
    group_start = 0
    for category, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        for start in range(first, end, unit_size):
            if len(units) % _UNITS_PER_GROUP == 0:
                group_start = start
            part = ordered.slice(start, min(unit_size, end - start))
            group = len(units) // _UNITS_PER_GROUP
            name = _unit_name(category, part)
            units.append(PlannedUnit(name, category, group, start - group_start, len(part)))
        first = end
    return units


def _unit_name(category: str, part: pa.Table) -> str:
    names = ("image_uri", "length", "version")
    columns = [part.column(name).to_pylist() for name in names]
    text = "\n".join(
        f"{uri} {length} {version}" for uri, length, version in zip(*columns, strict=True)
    )
    return hashlib.blake2b(f"{category}\n{text}".encode(), digest_size=12).hexdigest()
