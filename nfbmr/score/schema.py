"""The columns of a scores data set. Names are the interface: columns are added, never renamed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

OK = "ok"
ERROR = "error"

# ``error_kind`` of what fails before and after the picture's bytes are looked at; the kinds between
# are those of ``DataError`` and ``DecodeError``.
NO_CATEGORY = "no_category"
NO_MODEL = "no_model"
LISTING = "listing"
MODEL = "model"

_COLUMNS: list[tuple[str, pa.DataType, str]] = [
    ("image_uri", pa.string(), "where the picture lies; unique in the data set"),
    ("archive", pa.string(), "the prefix, tar, zip or Parquet file it was found in"),
    ("member", pa.string(), "its name in the archive"),
    ("category", pa.string(), "product type"),
    (
        "status",
        pa.string(),
        "ok, or error: then the score is null, the map all nulls",
    ),
    ("error", pa.string(), "why there is no score"),
    ("error_kind", pa.string(), "the same as one short stable word, for counting"),
    ("score", pa.float64(), "image score; higher is more anomalous"),
    ("p_value", pa.float64(), "(1 + calibration scores not below) / (n + 1)"),
    ("calibration_size", pa.int32(), "n of the p-value, whose floor is 1 / (n + 1)"),
    ("is_anomalous", pa.bool_(), "score > threshold"),
    ("threshold", pa.float64(), "calibrated for the detector's false-alarm rate"),
    (
        "anomaly_map",
        pa.null(),
        "eq. 14 over C, row-major, map_height x map_width; as float16 at most 65504",
    ),
    ("map_height", pa.int32(), "rows of the anomaly map"),
    ("map_width", pa.int32(), "columns of the anomaly map"),
    ("peak_x", pa.float32(), "centre of the map's highest cell, 0..1 of the picture's width"),
    ("peak_y", pa.float32(), "centre of the map's highest cell, 0..1 of the picture's height"),
    ("image_height", pa.int32(), "of the picture as it was decoded, pixels"),
    ("image_width", pa.int32(), "of the picture as it was decoded, pixels"),
    ("content_hash", pa.string(), "BLAKE2b-128 of the encoded picture"),
    ("captured_at", pa.timestamp("ms", tz="UTC"), "when it was taken, where a source says so"),
    ("model_name", pa.string(), "registered model"),
    ("model_version", pa.string(), "its concrete version"),
    ("run_id", pa.string(), "of the scoring run"),
    ("scored_at", pa.timestamp("ms", tz="UTC"), "when"),
]

COLUMN_NAMES = [name for name, _, _ in _COLUMNS]


def score_schema(map_sizes: set[int], map_type: str = "float16") -> pa.Schema:
    """The schema of a run.

    Args:
        map_sizes: numbers of positions of the anomaly maps of the run's models. With one size, or
            none, the map column is a fixed-size list; models on different backbones make it a
            list of any length.
        map_type: ``float16`` or ``float32``, of the maps' values.
    """
    value = {"float16": pa.float16(), "float32": pa.float32()}[map_type]
    maps = pa.list_(value, next(iter(map_sizes))) if len(map_sizes) == 1 else pa.list_(value)
    fields = []
    for name, kind, description in _COLUMNS:
        data_type = maps if name == "anomaly_map" else kind
        nullable = name not in ("image_uri", "category", "status", "run_id", "scored_at")
        metadata = {"description": description}
        fields.append(pa.field(name, data_type, nullable=nullable, metadata=metadata))
    return pa.schema(fields)


def cast_rows(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in another schema of ``score_schema``, of the same or fewer columns.

    What a map holds beyond half precision is its largest number there, as where rows are made.
    """
    table = table.select(schema.names)
    place = schema.get_field_index("anomaly_map")
    if place >= 0:
        wanted, own = schema.field(place).type, table.schema.field(place).type
        if pa.types.is_float16(wanted.value_type) and not pa.types.is_float16(own.value_type):
            clipped = [_clipped(chunk, wanted) for chunk in table.column(place).chunks]
            column = pa.chunked_array(clipped, wanted)
            table = table.set_column(place, schema.field(place), column)
    return table.cast(schema)


def _clipped(maps: pa.Array, wanted: pa.DataType) -> pa.Array:
    limit = float(np.finfo(np.float16).max)
    values = pc.max_element_wise(maps.flatten(), -limit, skip_nulls=False)
    values = pc.min_element_wise(values, limit, skip_nulls=False)
    halves = values.cast(pa.float16())
    if pa.types.is_fixed_size_list(wanted):
        return pa.FixedSizeListArray.from_arrays(halves, type=wanted, mask=maps.is_null())
    return pa.ListArray.from_arrays(maps.offsets, halves, type=wanted, mask=maps.is_null())


def missing_map(schema: pa.Schema) -> list[None] | None:
    """The anomaly map of a row without a score.

    pyarrow 25 writes a null of a fixed-size list to Parquet, but refuses to read it back ("Expected
    all lists to be of size"); a list of nulls can be read by everything.
    """
    kind = schema.field("anomaly_map").type
    return [None] * kind.list_size if pa.types.is_fixed_size_list(kind) else None
