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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.score.schema import ERROR
from nfbmr.store_faults import PATIENCE_S, store_sentences

UNITS_FOLDER = "_units"
MARKER = "_SUCCESS"
_SUFFIX = ".parquet"
_FAILED = b"nfbmr.failed"


def write_unit(output: str, unit: str, table: pa.Table, patience_s: float = PATIENCE_S) -> None:
    """Commit a unit: all of its rows or none.

    Args:
        output: of the run.
        unit: its name.
        table: its rows.
        patience_s: how long a store that is busy or full is tried again.

    Raises:
        StoreError: it stays so.
    """
    failed = table.column("status").to_pylist().count(ERROR)
    metadata = {**(table.schema.metadata or {}), _FAILED: str(failed)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    with store_sentences(f"Writing {uri}"):
        storage.write_atomically(uri, sink.getvalue().to_pybytes(), patience_s)


def units_uri(output: str) -> str:
    """Where a run's committed units lie."""
    return storage.join(output, UNITS_FOLDER)


def read_failed(output: str, unit: str) -> int:
    """How many rows of a committed unit are errors, from the footer of its file alone.

    Raises:
        OutputError: its file is gone or damaged.
    """
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    fs, path = url_to_fs(uri)
    with _damage(uri), fs.open(path, "rb") as file:
        metadata = pq.read_schema(file).metadata or {}
        return int(metadata.get(_FAILED, b"0"))


@contextmanager
def _damage(uri: str) -> Iterator[None]:
    """Say of a unit's file that cannot be parsed what to do about it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OutputError(
            f"The finished unit {uri} is damaged ({error}): remove this file and run the same "
            "command again."
        ) from error


def finished_units(output: str) -> set[str]:
    """Names of the units that are committed."""
    names = storage.list_names(storage.join(output, UNITS_FOLDER))
    return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}


def read_unit(output: str, unit: str) -> pa.Table:
    """The rows of one committed unit.

    Raises:
        OutputError: its file is gone or damaged.
    """
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    data = storage.read(uri)
    if data is None:
        raise OutputError(f"The finished unit {uri} is gone: run the same command again.")
    with _damage(uri):
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
