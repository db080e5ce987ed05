"""Which units go into which file of the finished data set, and what the file is called.

The cut follows from the plan and the settings alone, not from what compression made of the rows:
two drivers of one run, or one that was killed and started again, write the same rows under the same
names, and a file of one can take the place of the other's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.errors import ConfigError
from nfbmr.score.plan import Plan
from nfbmr.score.planned_units import Units
from nfbmr.settings import OutputSettings

CATEGORY = "category"
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, Spark and pyarrow call the folder of rows without a value; it is read as null."""

_LONGEST_NAME_BYTES = 255
_OTHER_COLUMNS_BYTES = 64
"""Of a row besides its map, compressed; 54 were measured."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the finished data set.

    Attributes:
        name: below the data folder.
        units: whose rows it holds, in this order.
    """

    name: str
    units: Units

    @property
    def rows(self) -> int:
        """How many it holds."""
        return self.units.pictures


def cut_parts(plan: Plan, schema: pa.Schema, settings: OutputSettings) -> list[Part]:
    """Cut the units of a plan, in order, into files of at most the wanted size.

    A unit is never divided: a file of one unit may be larger. The size is reckoned with maps that
    do not compress at all, so files are rather smaller than ``mib_per_file``.

    Args:
        plan: of the run.
        schema: of the rows.
        settings: rows and MiB per file, folders by category.
    """
    map_bytes = _map_bytes(plan, schema)
    parts: list[Part] = []
    first = rows = size_bytes = 0
    category = ""
    for number, unit in enumerate(plan.units):
        unit_bytes = unit.count * (map_bytes.get(unit.category, 0) + _OTHER_COLUMNS_BYTES)
        full = (
            rows + unit.count > settings.rows_per_file
            or size_bytes + unit_bytes > settings.mib_per_file * 2**20
            or (settings.partition_by_category and category != unit.category)
        )
        if number > first and full:
            parts.append(_part(len(parts), plan.units[first:number], settings))
            first, rows, size_bytes = number, 0, 0
        category = unit.category
        rows, size_bytes = rows + unit.count, size_bytes + unit_bytes
    return [*parts, _part(len(parts), plan.units[first:], settings)] if len(plan.units) else parts


def _part(number: int, units: Units, settings: OutputSettings) -> Part:
    name = f"part-{number:05d}.parquet"
    if settings.partition_by_category:
        name = f"{category_folder(units[0].category)}/{name}"
    return Part(name, units)


def _map_bytes(plan: Plan, schema: pa.Schema) -> dict[str, int]:
    """Bytes of an uncompressed anomaly map, by category."""
    value_bytes = schema.field("anomaly_map").type.value_type.bit_width // 8
    shapes = {name: model.feature_shape for name, model in plan.models.items()}
    return {name: height * width * value_bytes for name, (_, height, width) in shapes.items()}


def is_part(name: str) -> bool:
    """Whether a file below the data folder is named as one of ours."""
    return re.fullmatch(rf"({CATEGORY}=[^/]*/)?part-\d{{5,}}\.parquet", name) is not None


def category_folder(category: str) -> str:
    """The folder of a category's files, named as Hive does: ``category=…``.

    What a path cannot hold is written as in a URI. Letters beyond ASCII stay: pyarrow and Spark
    disagree about their escapes.
    """
    unsafe = r"[\x00-\x1f\x7f\"#%'*/:=?\\<>|{}\[\]^]"
    escaped = re.sub(unsafe, lambda match: f"%{ord(match[0]):02X}", category)
    return f"{CATEGORY}={escaped or NO_VALUE}"


def check_folders(categories: Iterable[str], output: str, settings: OutputSettings) -> None:
    """Refuse folders by category where the output's file system has no names that long.

    Args:
        categories: of the run.
        output: of the run; in an object store a name may be as long as a key.
        settings: whether there are such folders.

    Raises:
        ConfigError: a category's name is too long.
    """
    is_local = isinstance(storage.file_system(output)[0], LocalFileSystem)
    if not (settings.partition_by_category and is_local):
        return
    for category in categories:
        length = len(category_folder(category).encode())
        if length > _LONGEST_NAME_BYTES:
            raise ConfigError(
                f"The category {category[:40]}… is too long for the name of a folder ({length} "
                f"bytes; {_LONGEST_NAME_BYTES} are possible): set "
                "run.output.partition_by_category = false, and run the same command again."
            )
