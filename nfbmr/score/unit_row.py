"""How a unit travels through the pipeline: as one row, so that no stage can split it.

Its pictures' names travel as JSON, their encoded bytes as one buffer; where decoding is a stage of
its own (``run.decode = 'tasks'``), their pixels as another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from nfbmr.score.stage_clock import CPU_COLUMNS, WALL_COLUMNS

UNIT_ROW = pa.schema(
    [
        ("unit", pa.string()),
        ("category", pa.string()),
        ("pictures", pa.string()),
        ("encoded", pa.large_binary()),
        ("pixels", pa.large_binary()),
        *((name, pa.float64()) for name in (*WALL_COLUMNS, *CPU_COLUMNS)),
    ]
)


@dataclass
class UnitPicture:
    """A picture of a unit on its way, without its bytes.

    Attributes:
        image_uri: see ``PlannedPicture``.
        archive: see ``PlannedPicture``.
        member: see ``PlannedPicture``.
        encoded_bytes: length of its encoded bytes in the unit's buffer; 0 if they were not read.
        content_hash: of the encoded bytes, where they could be read.
        image_height: of the decoded picture, pixels.
        image_width: of the decoded picture, pixels.
        error: why there is no score.
        error_kind: the same as one short stable word.
        captured_at: when it was taken, in ISO 8601.
        refused: see ``ReadPicture``.
    """

    image_uri: str
    archive: str
    member: str
    encoded_bytes: int = 0
    content_hash: str | None = None
    image_height: int | None = None
    image_width: int | None = None
    error: str | None = None
    error_kind: str | None = None
    captured_at: str | None = None
    refused: str | None = None

    def fail(self, error: str, kind: str) -> None:
        """Say why there is no score."""
        self.error, self.error_kind = error, kind


def pictures_to_json(pictures: Sequence[UnitPicture]) -> str:
    """Pictures as they travel."""
    return json.dumps([asdict(picture) for picture in pictures])


def pictures_from_json(text: str) -> list[UnitPicture]:
    """What ``pictures_to_json`` wrote."""
    return [UnitPicture(**values) for values in json.loads(text)]


def bytes_of(batch: pa.Table, column: str) -> memoryview:
    """A binary column of a batch of one unit, without a copy; empty where it is null."""
    value = batch.column(column)[0]
    return memoryview(value.as_buffer()) if value.is_valid else memoryview(b"")


def values_of(batch: pa.Table) -> dict[str, Any]:
    """The other columns of a batch of one unit."""
    row: dict[str, Any] = batch.drop_columns(["encoded", "pixels"]).to_pylist()[0]
    return row
