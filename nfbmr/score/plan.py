"""The plan of a scoring run: every picture once, cut into units, models pinned to versions.

Written before any work starts, read by every later run of the same command.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import __version__, storage
from nfbmr.data.archives import list_archive
from nfbmr.errors import ConfigError, DataError, OutputError, RegistryError
from nfbmr.model_version import ModelVersion
from nfbmr.registry import Registry, load_detector

FORMAT = 1
PLAN_FOLDER = "_plan"
_JSON = "plan.json"
_PARQUET = "pictures.parquet"
_PICTURES = pa.schema(
    [
        ("image_uri", pa.string()),
        ("archive", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("category", pa.string()),
        ("unit", pa.string()),
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
        category: which detector scores it.
        unit: which unit it belongs to.
        problem: why it cannot be scored, known since listing.
    """

    image_uri: str
    archive: str
    member: str
    offset: int | None
    length: int | None
    category: str
    unit: str = ""
    problem: str | None = None


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
        pictures: all of them, ordered by unit.
    """

    run_id: str
    request: dict[str, Any]
    models: dict[str, PlannedModel]
    model_errors: dict[str, str]
    pictures: list[PlannedPicture]

    def units(self) -> dict[str, list[PlannedPicture]]:
        """Pictures by unit, in order."""
        units: dict[str, list[PlannedPicture]] = {}
        for picture in self.pictures:
            units.setdefault(picture.unit, []).append(picture)
        return units

    def counts(self) -> Counter[str]:
        """Pictures per category."""
        return Counter(picture.category for picture in self.pictures)


class CategoryRule:
    """How a picture's category follows from its name.

    Args:
        pattern: matched against the beginning of the member's name. ``{category}`` stands for one
            path component, ``*`` for anything within one, ``**`` for anything.
        fixed: the category of all pictures; overrides the pattern.

    Raises:
        ConfigError: the pattern has no ``{category}``.
    """

    def __init__(self, pattern: str = "{category}/", fixed: str | None = None) -> None:
        if fixed is None and "{category}" not in pattern:
            raise ConfigError(
                f"--category-pattern {pattern!r} does not say where the category stands: write "
                "{category} in it, as in 'line-7/{category}/', or give one --category for all."
            )
        self.pattern = pattern
        self.fixed = fixed
        pieces = re.split(r"(\{category\}|\*\*|\*)", pattern)
        meaning = {"{category}": "(?P<category>[^/]+)", "**": ".*", "*": "[^/]*"}
        self._expression = re.compile("".join(meaning.get(p, re.escape(p)) for p in pieces))

    def category(self, member: str) -> str | None:
        """The category of a member, or None where the pattern does not match."""
        if self.fixed is not None:
            return self.fixed
        match = self._expression.match(member)
        return match.group("category") if match else None


def list_sources(sources: Sequence[str], rule: CategoryRule) -> list[PlannedPicture]:
    """List every picture of the sources once.

    What is damaged in an archive becomes a planned picture with a problem, so that it ends as a
    row with that error.

    Raises:
        DataError: a source is missing or holds no picture, or no picture has a category.
    """
    pictures: dict[str, PlannedPicture] = {}
    for source in sources:
        listing = list_archive(source)
        for entry in listing.entries:
            category = rule.category(entry.member)
            problem = None if category else f"no category in its name by {rule.pattern!r}"
            pictures[entry.image_uri] = PlannedPicture(
                entry.image_uri,
                entry.archive,
                entry.member,
                entry.offset,
                entry.length,
                category or "",
                problem=problem,
            )
        for number, text in enumerate(listing.problems):
            uri = f"{source}::#problem-{number}"
            pictures[uri] = PlannedPicture(uri, source, "", None, None, "", problem=text)
    if pictures and all(not p.category for p in pictures.values()):
        first = next(iter(pictures.values()))
        raise DataError(
            f"None of the {len(pictures)} pictures has a category by {rule.pattern!r}, for example "
            f"{first.member!r}: give --category NAME, or a --category-pattern that fits."
        )
    return list(pictures.values())


def make_plan(
    pictures: Iterable[PlannedPicture],
    request: Mapping[str, Any],
    registry: Registry,
    alias: str,
    unit_size: int,
) -> Plan:
    """Pin the models and cut the pictures into units.

    Args:
        pictures: from ``list_sources`` or made of labelled samples.
        request: see ``Plan``.
        registry: where models are looked up, once.
        alias: alias or version of the models.
        unit_size: pictures per unit at most.

    Raises:
        RegistryError: not one category has a model, or the registry is out of reach.
    """
    ordered = sorted(pictures, key=lambda picture: (picture.category, picture.image_uri))
    models: dict[str, PlannedModel] = {}
    errors: dict[str, str] = {}
    for category in sorted({picture.category for picture in ordered if picture.category}):
        version = registry.find(category, alias)
        if version is None:
            errors[category] = f"category {category!r} has no model with alias {alias!r}"
            continue
        models[category] = _planned_model(version, registry.uri)
    if not models:
        # Says what there is, and the nearest name.
        registry.resolve(next(iter(errors), ""), alias)
        raise RegistryError("No picture's category has a model.")
    return Plan(
        run_id=uuid.uuid4().hex,
        request=dict(request),
        models=models,
        model_errors=errors,
        pictures=_cut(ordered, unit_size),
    )


def _planned_model(version: ModelVersion, registry_uri: str) -> PlannedModel:
    detector = load_detector(version, registry_uri)
    return PlannedModel(version, detector.backbone, detector.weights, detector.heads.shape)


def _cut(ordered: Sequence[PlannedPicture], unit_size: int) -> list[PlannedPicture]:
    """Give every picture its unit; a unit holds one category and is named by what it holds."""
    by_category: dict[str, list[PlannedPicture]] = {}
    for picture in ordered:
        by_category.setdefault(picture.category, []).append(picture)
    cut: list[PlannedPicture] = []
    for members in by_category.values():
        for start in range(0, len(members), unit_size):
            part = members[start : start + unit_size]
            text = "\n".join(f"{p.image_uri} {p.length}" for p in part)
            unit = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
            cut += [PlannedPicture(**{**asdict(p), "unit": unit}) for p in part]
    return cut


def save_plan(plan: Plan, output: str) -> None:
    """Write the plan; its JSON comes last and says that the plan is whole."""
    rows = [asdict(picture) for picture in plan.pictures]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_PICTURES), sink, compression="zstd")
    folder = storage.join(output, PLAN_FOLDER)
    storage.write_atomically(storage.join(folder, _PARQUET), sink.getvalue().to_pybytes())
    description = {
        "format": FORMAT,
        "nfbmr_version": __version__,
        "run_id": plan.run_id,
        "request": plan.request,
        "models": {name: asdict(model) for name, model in plan.models.items()},
        "model_errors": plan.model_errors,
    }
    data = json.dumps(description, indent=1).encode()
    storage.write_atomically(storage.join(folder, _JSON), data)


def load_plan(output: str) -> Plan | None:
    """The plan under an output, or None where there is none yet.

    Raises:
        OutputError: it is damaged or of another format.
    """
    folder = storage.join(output, PLAN_FOLDER)
    data = storage.read(storage.join(folder, _JSON))
    if data is None:
        return None
    try:
        description = json.loads(data)
        if description["format"] != FORMAT:
            raise OutputError(
                f"The plan in {folder} has format {description['format']}, this nfbmr "
                f"{__version__} reads {FORMAT}: finish the run with nfbmr "
                f"{description.get('nfbmr_version')}, or choose another --output."
            )
        table = pq.read_table(pa.BufferReader(storage.read(storage.join(folder, _PARQUET))))
        return Plan(
            run_id=description["run_id"],
            request=description["request"],
            models={n: _model_from_json(m) for n, m in description["models"].items()},
            model_errors=description["model_errors"],
            pictures=[PlannedPicture(**row) for row in table.to_pylist()],
        )
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise OutputError(
            f"The plan in {folder} is damaged ({error}): choose another --output, or remove this "
            "one to start again."
        ) from error


def _model_from_json(values: Mapping[str, Any]) -> PlannedModel:
    version = dict(values["version"])
    version["aliases"] = tuple(version["aliases"])
    channels, height, width = values["feature_shape"]
    return PlannedModel(
        ModelVersion(**version),
        values["backbone"],
        values["weights"],
        (channels, height, width),
    )
