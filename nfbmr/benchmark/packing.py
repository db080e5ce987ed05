"""The same pictures as every kind of archive, on a disk or in an object store, to be scored."""

from __future__ import annotations

import io
import itertools
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from nfbmr import storage
from nfbmr.data.content import read_bytes
from nfbmr.data.sample import Sample

_UPLOADS = 16
_ROWS_PER_GROUP = 64


def pack(samples: Sequence[Sample], kind: str, root: str) -> str:
    """Copy pictures into one archive, unless it is there already.

    Args:
        samples: the pictures; a member's name begins with its category.
        kind: one of ``KINDS``.
        root: folder or ``s3://`` prefix in which the archive is written.

    Returns:
        What a scoring run takes as its source.
    """
    return _PACKERS[kind](samples, root)


def _members(samples: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    for index, sample in enumerate(samples):
        yield _name(index, sample), read_bytes(sample.uri)


def _name(index: int, sample: Sample) -> str:
    return f"{sample.category}/{index:06d}{PurePosixPath(sample.uri).suffix}"


def _pack_prefix(samples: Sequence[Sample], root: str) -> str:
    folder = storage.join(root, f"prefix-{len(samples)}")

    def copy(numbered: tuple[int, Sample]) -> None:
        index, sample = numbered
        storage.write_atomically(storage.join(folder, _name(index, sample)), read_bytes(sample.uri))

    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(copy, enumerate(samples)))
    return folder


def _pack_tar(samples: Sequence[Sample], root: str) -> str:
    uri = storage.join(root, f"{len(samples)}.tar")
    with (
        storage.open_atomically(uri) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in _members(samples):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return uri


def _pack_zip(samples: Sequence[Sample], root: str) -> str:
    uri = storage.join(root, f"{len(samples)}.zip")
    with (
        storage.open_atomically(uri) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, data in _members(samples):
            archive.writestr(name, data)
    return uri


def _pack_parquet(samples: Sequence[Sample], root: str) -> str:
    """Small row groups: a unit reads those that its pictures lie in."""
    uri = storage.join(root, f"{len(samples)}.parquet")
    schema = pa.schema([("name", pa.string()), ("image", pa.binary())])
    with (
        storage.open_atomically(uri) as file,
        pq.ParquetWriter(file, schema, compression="none") as writer,
    ):
        members = _members(samples)
        while group := list(itertools.islice(members, _ROWS_PER_GROUP)):
            names, data = zip(*group, strict=True)
            writer.write_table(pa.table([list(names), list(data)], schema=schema))
    return uri


_PACKERS: dict[str, Callable[[Sequence[Sample], str], str]] = {
    "prefix": _pack_prefix,
    "tar": _pack_tar,
    "zip": _pack_zip,
    "parquet": _pack_parquet,
}
KINDS = tuple(_PACKERS)
