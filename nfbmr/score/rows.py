"""From a unit's pictures and their scores to the rows of the data set."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nfbmr.score.plan import PlannedModel
from nfbmr.score.schema import ERROR, OK, missing_map
from nfbmr.score.unit_row import UnitPicture

_COPIED = (
    "image_uri",
    "archive",
    "member",
    "content_hash",
    "image_height",
    "image_width",
    "error",
    "error_kind",
)


@dataclass(frozen=True)
class RowMaker:
    """Makes a row per picture, with nulls where there is no score.

    Attributes:
        models: the plan's models.
        run_id: of the scoring run.
        schema: of the rows.
    """

    models: Mapping[str, PlannedModel]
    run_id: str
    schema: pa.Schema

    def table(
        self,
        category: str,
        pictures: Sequence[UnitPicture],
        columns: Mapping[str, Sequence[Any]],
    ) -> pa.Table:
        """All rows of a unit, in the order of its pictures.

        Args:
            category: of the unit.
            pictures: all of them.
            columns: values of those without an error, in order.
        """
        if "anomaly_map" in columns:
            columns = {**columns, "anomaly_map": _stored(columns["anomaly_map"], self.schema)}
        model = self.models.get(category)
        now = datetime.datetime.now(datetime.UTC)
        no_map = missing_map(self.schema)
        rows = []
        scored = 0
        for picture in pictures:
            row: dict[str, Any] = {name: getattr(picture, name) for name in _COPIED}
            row["status"] = OK if picture.error is None else ERROR
            row["captured_at"] = _time(picture.captured_at)
            row["anomaly_map"] = no_map
            if picture.error is None:
                row |= {name: values[scored] for name, values in columns.items()}
                scored += 1
            row |= {
                "category": category,
                "model_name": model.version.name if model else None,
                "model_version": model.version.version if model else None,
                "run_id": self.run_id,
                "scored_at": now,
            }
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=self.schema)


def _time(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


def _stored(maps: Sequence[NDArray[np.float32]], schema: pa.Schema) -> list[NDArray[np.floating]]:
    """Maps (P,) in the schema's precision; what is beyond half precision is its largest number."""
    if not pa.types.is_float16(schema.field("anomaly_map").type.value_type):
        return list(maps)
    limit = float(np.finfo(np.float16).max)
    return [map_P.clip(-limit, limit).astype(np.float16) for map_P in maps]
