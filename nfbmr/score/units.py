"""Units on disk: a unit's rows become visible in one atomic write under the unit's own name.

Layout of an unfinished output::

    _plan/            what is to be done (see ``plan``)
    _units/           one Parquet file per finished unit

``dataset`` says what it becomes. Names that begin with an underscore are passed over by pyarrow,
Spark and Ray when they read the output as a data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import storage, store_folders
from nfbmr.errors import OutputError
from nfbmr.plain_columns import plain
from nfbmr.score.schema import ERROR
from nfbmr.store_faults import PATIENCE_S, is_stores, retried, store_sentences

UNITS_FOLDER = "_units"
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
        storage.write_atomically(uri, sink.getvalue().to_pybytes(), patience_s, durable=True)


def units_uri(output: str) -> str:
    """Where a run's committed units lie."""
    return storage.join(output, UNITS_FOLDER)


def read_failed(output: str, unit: str) -> int:
    """How many rows of a committed unit are errors, from the footer of its file alone.

    Raises:
        OutputError: its file is gone or damaged.
    """
    uri = storage.join(output, UNITS_FOLDER, unit + _SUFFIX)
    fs, path = storage.file_system(uri)

    def read() -> int:
        with fs.open(path, "rb") as file:
            metadata = pq.read_schema(file).metadata or {}
            return int(metadata.get(_FAILED, b"0"))

    with _damage(uri):
        return retried(read)


@contextmanager
def _damage(uri: str) -> Iterator[None]:
    """Say of a unit's file that cannot be parsed what to do about it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_stores(error):
            raise
        raise OutputError(
            f"The finished unit {uri} is damaged ({error}): remove this file and run the same "
            "command again."
        ) from error


def finished_units(output: str) -> set[str]:
    """Names of the units that are committed."""
    names = store_folders.list_names(storage.join(output, UNITS_FOLDER))
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
        return plain(pq.read_table(pa.BufferReader(data)))
