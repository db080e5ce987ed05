"""Units on disk: a unit's rows become visible in one atomic write under the unit's own name.

Layout of an output::

    _plan/            what is to be done (see ``plan``)
    _units/           one Parquet file per finished unit, until the run is complete
    part-00000.parquet, …    the finished data set: few, large files
    _SUCCESS          JSON; its presence says that the data set is whole

Names that begin with an underscore are passed over by pyarrow, Spark and Ray when they read the
output as a data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from nfbmr import storage
from nfbmr.errors import OutputError

UNITS_FOLDER = "_units"
MARKER = "_SUCCESS"
_SUFFIX = ".parquet"
MAX_ROWS_PER_FILE = 1_000_000


def write_unit(output: str, unit: str, table: pa.Table) -> None:
    """Commit a unit: all of its rows or none."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    storage.write_atomically(uri, sink.getvalue().to_pybytes())


def finished_units(output: str) -> set[str]:
    """Names of the units that are committed."""
    names = storage.list_names(storage.join(output, UNITS_FOLDER))
    return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}


def merge_units(
    output: str, units: list[str], schema: pa.Schema, summary: Mapping[str, Any]
) -> None:
    """Merge the finished units into few large files, mark the data set whole, drop the units.

    Every step can be cut off and done again: the parts are written under fixed names, and the
    units are removed only after the marker is there.

    Args:
        output: of the run.
        units: names of all units of the plan, in the order of the rows.
        schema: of the rows.
        summary: written into the marker.
    """
    schema = schema.with_metadata({"nfbmr": json.dumps(summary)})
    for number, part in enumerate(_parts(output, units, schema)):
        uri = storage.join(output, f"part-{number:05d}.parquet")
        storage.write_atomically(uri, part)
    storage.write_atomically(storage.join(output, MARKER), json.dumps(summary, indent=1).encode())
    storage.remove_tree(storage.join(output, UNITS_FOLDER))


def _parts(output: str, units: list[str], schema: pa.Schema) -> Iterator[bytes]:
    """Finished files one after the other, each of whole units."""
    remaining = list(units)
    while remaining:
        sink = pa.BufferOutputStream()
        rows = 0
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            while remaining and rows < MAX_ROWS_PER_FILE:
                table = read_unit(output, remaining.pop(0))
                writer.write_table(table.cast(schema))
                rows += table.num_rows
        yield sink.getvalue().to_pybytes()


def read_unit(output: str, unit: str) -> pa.Table:
    """The rows of one committed unit.

    Raises:
        OutputError: its file is gone.
    """
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    data = storage.read(uri)
    if data is None:
        raise OutputError(f"The finished unit {uri} is gone: run the same command again.")
    return pq.read_table(pa.BufferReader(data))


def read_marker(output: str) -> dict[str, Any] | None:
    """The summary of a finished run, or None where it is not finished."""
    data = storage.read(storage.join(output, MARKER))
    return None if data is None else json.loads(data)


def read_scores(output: str) -> pa.Table:
    """All rows of a finished run.

    Raises:
        OutputError: there is no finished run.
    """
    output = storage.absolute_uri(output)
    if read_marker(output) is None:
        raise OutputError(
            f"There is no finished scoring run at {output}: run jobs/score.py with this --output "
            "until it ends; the same command goes on where it stopped."
        )
    fs, path = url_to_fs(output)
    return pyarrow.dataset.dataset(path, filesystem=fs, format="parquet").to_table()
