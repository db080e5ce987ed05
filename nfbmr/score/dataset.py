"""The finished data set of a run: where it lies, how it appears, how it is read.

Layout of a finished output::

    data/part-00000.parquet, …            few, large files; or with run.output.partition_by_category
    data/category=<name>/part-00000.parquet, …
    _SUCCESS         JSON: the files that belong to the data set, and the run's summary
    _summary.json    the summary alone
    _plan/           what was to be done
    _retry/          while its error rows are scored again

**When a reader may read.** The files are written under ``_merge-…``, which pyarrow, Spark, DuckDB's
globs and Ray pass over, and published as a whole:

- on a disk by renaming that folder to ``data``: there is no data set, or all of it;
- in an object store, which cannot rename, by copying its finished files to ``data/`` inside the
  store. While that goes on (seconds per hundred files) a reader that lists ``data/`` may find some
  of them. The marker ``_SUCCESS`` comes after the last: wait for it, as with data sets that Spark
  or Hadoop write. ``read_scores`` and ``scores_dataset`` do, and read the files that the marker
  names, not what lies there.

Scoring error rows again replaces whole files, each in one atomic write: see ``retry``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nfbmr import storage, store_folders
from nfbmr.errors import OutputError
from nfbmr.output_place import check_place
from nfbmr.plain_columns import plain
from nfbmr.score.parts import CATEGORY
from nfbmr.score.plan_files import PLAN_FOLDER, PLAN_JSON
from nfbmr.score.schema import COLUMN_NAMES
from nfbmr.store_faults import retried

ANOMALY_MAP = "anomaly_map"
DATA_FOLDER = "data"
MARKER = "_SUCCESS"
RETRY_FOLDER = "_retry"


def data_uri(output: str) -> str:
    """Where a run's finished data set lies."""
    return storage.join(output, DATA_FOLDER)


def read_marker(output: str) -> dict[str, Any] | None:
    """What the marker of a finished run says, or None where the run is not finished.

    Raises:
        OutputError: it is damaged.
    """
    uri = storage.join(output, MARKER)
    data = storage.read(uri)
    if data is None:
        return None
    try:
        marker = json.loads(data)
        _check_marker(marker)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutputError(
            f"{uri} is damaged ({type(error).__name__}: {error}): it is no marker of a finished "
            "run. Delete it; the same command then finishes the run anew."
        ) from error
    return dict(marker)


def _check_marker(marker: Any) -> None:
    """Raises ``TypeError`` or ``KeyError`` where a part is missing or of another type."""
    if not isinstance(marker, dict):
        raise TypeError("no object")
    if "files" not in marker:  # Of an older version, see ``finished_marker``.
        return
    parts = {"pictures": int, "failed": int, "nfbmr_version": str, "run": dict}
    wrong = [name for name, kind in parts.items() if not isinstance(marker[name], kind)]
    files = marker["files"]
    if wrong or not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise TypeError(f"{', '.join(wrong) or 'files'} of another type")
    if not isinstance(marker["run"]["run_id"], str):
        raise TypeError("run_id of another type")


def write_marker(output: str, contents: dict[str, Any]) -> None:
    """Say that the data set is whole.

    Args:
        output: of the run.
        contents: with the names of its files under ``files``.
    """
    data = json.dumps(contents, indent=1).encode()
    storage.write_atomically(storage.join(output, MARKER), data, durable=True)


def finished_marker(output: str) -> dict[str, Any]:
    """The marker of a run that must be finished.

    Raises:
        OutputError: it is not, or an older version of nfbmr finished it.
    """
    marker = read_marker(output)
    if marker is None:
        raise OutputError(
            f"There is no finished scoring run at {output}: run jobs/score.py with this --output "
            "until it ends; the same command goes on where it stopped."
        )
    if "files" not in marker:
        raise OutputError(
            f"The run at {output} was finished by nfbmr {marker.get('nfbmr_version')}, whose files "
            "are arranged in another way: score it anew with another --output."
        )
    return marker


def is_being_retried(output: str) -> bool:
    """Whether scoring a finished run's error rows again was begun and is not finished.

    Then some rows may be others than those that the marker counts.
    """
    plan = storage.join(output, RETRY_FOLDER, PLAN_FOLDER)
    return PLAN_JSON in store_folders.list_names(plan)


def scores_dataset(output: str) -> ds.Dataset:
    """A finished run as a data set to scan and filter; it reads nothing yet.

    With folders by category, pictures without any category have a null there.

    Raises:
        OutputError: there is no finished run.
    """
    check_place(output)
    output = storage.absolute_uri(output)
    return files_dataset(output, finished_marker(output)["files"])


def files_dataset(output: str, names: Sequence[str]) -> ds.Dataset:
    """Some files of a data set.

    Args:
        output: of the run.
        names: of the files below the data folder, at least one.
    """
    return retried(lambda: _dataset(output, names))


def _dataset(output: str, names: Sequence[str]) -> ds.Dataset:
    fs, path = storage.file_system(data_uri(output))
    paths = [f"{path}/{name}" for name in names]
    schema = pq.read_schema(paths[0], filesystem=fs)
    if CATEGORY in schema.names:
        return plain(ds.dataset(paths, filesystem=fs, format="parquet", schema=schema))
    # Given, not guessed: a category may be called 007.
    partitioned_by = pa.schema([pa.field(CATEGORY, pa.string())])
    schema = schema.insert(COLUMN_NAMES.index(CATEGORY), partitioned_by.field(CATEGORY))
    return plain(
        ds.dataset(
            paths,
            filesystem=fs,
            format="parquet",
            schema=schema,
            partitioning=ds.partitioning(partitioned_by, flavor="hive"),
            partition_base_dir=path,
        )
    )


def read_scores(output: str) -> pa.Table:
    """All rows of a finished run.

    Raises:
        OutputError: there is no finished run.
    """
    table = retried(lambda: scores_dataset(output).to_table())
    index = table.schema.get_field_index(CATEGORY)
    field = table.schema.field(CATEGORY).with_nullable(False)
    return table.set_column(index, field, pc.fill_null(table.column(CATEGORY), ""))


class StoredMap:
    """One row's anomaly map, where it lies in a column: an array once somebody looks at it.

    Args:
        column: of maps.
        row: which.
    """

    def __init__(self, column: pa.ChunkedArray, row: int) -> None:
        self._column = column
        self._row = row

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Its values in a row."""
        del copy
        values: NDArray[Any] = self._column[self._row].values.to_numpy(zero_copy_only=False)
        return values if dtype is None else values.astype(dtype)


def rows_of(scores: pa.Table) -> list[dict[str, Any]]:
    """Rows of scores as plain values, but for their maps: as objects those would fill the memory.

    A million maps of 24 x 24 take 1.2 GB as they are stored, and 19 GB as numbers of Python.

    Args:
        scores: of a finished run.
    """
    maps = scores.column(ANOMALY_MAP)
    rows: list[dict[str, Any]] = scores.drop_columns([ANOMALY_MAP]).to_pylist()
    for number, (row, is_there) in enumerate(zip(rows, maps.is_valid().to_pylist(), strict=True)):
        row[ANOMALY_MAP] = StoredMap(maps, number) if is_there else None
    return rows
