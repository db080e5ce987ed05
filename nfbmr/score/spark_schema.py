"""What Spark should take the columns of a file for.

Spark 4 refuses a file with half-precision floats ("Illegal Parquet type: FLOAT16") unless a schema
says what to make of them. It looks for one in the file's metadata, where it writes its own
(``ParquetReadSupport.SPARK_METADATA_KEY``). Ours says that a half-precision value is a ``binary``
of two bytes, little-endian; ``run.output.map_type = "float32"`` makes it a ``float``.
"""

from __future__ import annotations

import json

import pyarrow as pa

SPARK_KEY = "org.apache.spark.sql.parquet.row.metadata"

_NAMES = {
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int32(): "integer",
    pa.float16(): "binary",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.timestamp("ms", tz="UTC"): "timestamp",
}


def spark_schema(schema: pa.Schema) -> str:
    """A schema as Spark writes it: JSON, with the descriptions as comments."""
    fields = [
        {
            "name": field.name,
            "type": _spark_type(field.type),
            "nullable": field.nullable,
            "metadata": {"comment": (field.metadata or {}).get(b"description", b"").decode()},
        }
        for field in schema
    ]
    return json.dumps({"type": "struct", "fields": fields})


def _spark_type(kind: pa.DataType) -> object:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        element = _spark_type(kind.value_type)
        return {"type": "array", "elementType": element, "containsNull": True}
    return _NAMES[kind]
