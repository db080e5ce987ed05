"""Archives read where they lie: which pictures they hold, and the bytes of each.

A picture in a folder or prefix is named by its own URI. A member of a tar, zip or Parquet file is
named ``<archive>::<member>``. That name is for people and for joining tables: it is never opened
as a path, and what it stands for is said exactly by an entry's ``archive``, ``offset`` and
``length``. Nothing is unpacked to disk, and a member's name never becomes a path.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage
from nfbmr.data.archive_entry import (
    COMPRESSED_TAR_SUFFIXES,
    TABLE_SUFFIXES,
    ArchiveEntry,
    ArchiveListing,
    is_row,
    whole,
)
from nfbmr.data.compressed_tar import CompressedTarLister, read_compressed_tar_member
from nfbmr.data.globs import MatchedPictures, expand, is_pattern
from nfbmr.data.lister import Lister, SliceListing, WholeLister
from nfbmr.data.manifest import ManifestLister
from nfbmr.data.parquet_archive import (
    ParquetLister,
    damage_named,
    open_parquet,
    read_parquet_row,
)
from nfbmr.data.pattern_tree import PatternTree, PicturePattern
from nfbmr.data.picture_file import DEFAULT_LIMITS, DecodeLimits
from nfbmr.data.ranges import fetch, size_and_version
from nfbmr.data.table_columns import (
    MANIFEST,
    PICTURES,
    USUAL_COLUMNS,
    TableColumns,
    bytes_column,
    check_columns,
    no_pictures_in,
)
from nfbmr.data.tar_archive import read_tar_member
from nfbmr.data.tar_lister import TarLister
from nfbmr.data.tree_listing import TreeLister
from nfbmr.data.zip_archive import ZipLister, read_zip_member
from nfbmr.errors import DamagedTableError, DataError, NfbmrError

LISTING_THREADS = 16


def listers_of(
    source: str,
    keep: str | None = None,
    columns: TableColumns = USUAL_COLUMNS,
    is_only: bool = True,
) -> list[Lister]:
    """What lists a source: one archive, or all that a pattern with wildcards matches.

    Args:
        source: an address as ``lister_of`` takes it, or a pattern of such.
        keep: see ``lister_of``.
        columns: see ``lister_of``.
        is_only: whether there is no other source; a damaged table among others is an error row.

    Raises:
        DataError: it is missing, matches nothing or cannot be reached.
    """
    address = plain_address(source)
    if not is_pattern(address):
        find = lister_of if is_only else _lister_among_others
        return [find(address, keep, columns)]
    pictures = PicturePattern.of(address)
    if pictures is not None:
        return [PatternTree(pictures)]
    matches = expand(address)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        listers = list(
            pool.map(lambda uri: _lister_among_others(uri, keep, columns), matches.archives)
        )
    if len(matches.pictures) or matches.problems:
        listers.append(MatchedPictures(matches))
    return listers


def lister_of(uri: str, keep: str | None = None, columns: TableColumns = USUAL_COLUMNS) -> Lister:
    """What lists an archive: what it is follows from the end of its name.

    Args:
        uri: a path, ``file://``, ``s3://`` …; ``.tar``, ``.tar.gz``, ``.tgz``, ``.zip``,
            ``.parquet`` (pictures or a manifest), ``.csv`` (a manifest), else a folder or prefix.
        keep: a folder for what is better kept with the listing: seek indexes of compressed tars.
        columns: of Parquet files and manifests.

    Raises:
        DataError: it is missing or cannot be reached.
    """
    address = plain_address(uri)
    lowered = address.lower()
    if lowered.endswith(".tar"):
        return TarLister(address, *size_and_version(address))
    if lowered.endswith(COMPRESSED_TAR_SUFFIXES):
        return CompressedTarLister(address, *size_and_version(address), keep)
    if lowered.endswith(".zip"):
        return ZipLister(address, *size_and_version(address))
    if lowered.endswith(TABLE_SUFFIXES):
        return _table_lister(address, columns)
    return TreeLister(address)


class DamagedTable(WholeLister):
    """A table that cannot be opened, among other sources: one error row.

    Args:
        archive: its address.
        version: of its file; when it is mended, it is listed anew.
        reason: why it cannot be opened.
    """

    def __init__(self, archive: str, version: str, reason: str) -> None:
        super().__init__(archive, version)
        self._reason = reason

    def list_whole(self) -> ArchiveListing:
        """Nothing but the damage."""
        return ArchiveListing(self.archive, problems=[self._reason])


def _lister_among_others(uri: str, keep: str | None, columns: TableColumns) -> Lister:
    try:
        return lister_of(uri, keep, columns)
    except DamagedTableError as error:
        address = plain_address(uri)
        return DamagedTable(address, size_and_version(address)[1], str(error))


def _table_lister(address: str, columns: TableColumns) -> Lister:
    """A Parquet file with a column of bytes has the pictures, unless it is called a manifest."""
    size, version = size_and_version(address)
    try:
        if address.lower().endswith(".parquet") and columns.kind != MANIFEST:
            with damage_named(address), open_parquet(address, size, version) as file:
                schema = file.schema_arrow
            check_columns(address, schema, [columns.image])
            image = bytes_column(schema, columns)
            if image is not None:
                return ParquetLister(address, size, version, image, columns)
            if columns.kind == PICTURES:
                raise no_pictures_in(address, schema)
        return ManifestLister(address, size, version, columns)
    except pa.ArrowException as error:
        text = f"{address} cannot be read as a table of pictures: {error}."
        raise DamagedTableError(text) from error


def list_archive(uri: str) -> ArchiveListing:
    """List the pictures of a folder, prefix, tar, compressed tar or zip.

    Damage costs only what it hides, and is said in ``problems``.

    Args:
        uri: see ``lister_of``.

    Returns:
        The same listing every time, as long as the archive stays the same.

    Raises:
        DataError: it is missing, cannot be read, or no picture can be listed.
    """
    lister = lister_of(uri)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        slices = pool.map(lambda name: list(slices_from(lister, name)), lister.slices)
        listing = join_slices(lister, list(itertools.chain.from_iterable(slices)))
    check_any_pictures(
        listing.archive, len(listing.table), listing.problems, listing.skipped_members
    )
    return listing


def list_slice(lister: Lister, name: str) -> SliceListing:
    """List one slice of an archive.

    Raises:
        DataError: the storage failed.
    """
    try:
        return lister.list_slice(name)
    except NfbmrError:
        raise
    except Exception as error:  # the storage failed, not the archive: no half plan
        raise _broke_off(lister, error) from error


def slices_from(lister: Lister, name: str) -> Iterator[SliceListing]:
    """A slice of an archive, and those as which it goes on.

    Raises:
        DataError: the storage failed.
    """
    following: str | None = name
    while following is not None:
        listing = list_slice(lister, following)
        yield listing
        following = listing.goes_on_as


def join_slices(lister: Lister, slices: list[SliceListing]) -> ArchiveListing:
    """The listing of an archive, or of a piece of it, from those of its slices.

    Raises:
        DataError: the storage failed.
    """
    try:
        listing = lister.join(slices)
    except DataError:
        raise
    except Exception as error:  # as above
        raise _broke_off(lister, error) from error
    if not lister.may_repeat:  # Of a manifest's rows the first counts, as of all sources.
        listing.keep_last_of_each_name()
    return listing


def check_any_pictures(
    archive: str, pictures: int, problems: Sequence[str], skipped_members: int
) -> None:
    """Refuse an archive in which there is nothing to score.

    Args:
        archive: its address.
        pictures: that were listed.
        problems: damage that hides members.
        skipped_members: files that are no pictures.

    Raises:
        DataError: it holds no picture that can be listed.
    """
    if pictures:
        return
    reasons = list(problems) or [f"it has {skipped_members} other files"]
    raise DataError(
        f"{archive} holds no pictures that can be listed: {'; '.join(reasons)}. "
        "Expected jpg, png, bmp, tiff or webp in a folder, prefix, .tar, .tar.gz or .zip, or "
        "rows of a .parquet or .csv; archives inside a folder are given by their own names "
        "or by a pattern such as '*.tar'."
    )


def _broke_off(lister: Lister, error: Exception) -> DataError:
    return DataError(
        f"Reading the archive {lister.archive} broke off: {type(error).__name__}: {error}. Run the "
        "same command again."
    )


def read_entry(entry: ArchiveEntry, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded bytes of one picture.

    A file of its own and a member of a tar or zip take one request, which also says whether the
    file is still the one that was listed.

    Args:
        entry: as the listing gave it.
        limits: a picture of more bytes is not read.

    Raises:
        DataError: it cannot be read, is not what was listed, or is too large.
    """
    known = None if is_row(entry.archive, entry.offset) else entry.length
    if known is not None and known > limits.max_bytes:
        raise _too_large(entry, limits, f"{known} bytes, more than")
    try:
        data = _reader(entry, limits)(entry)
        if len(data) > limits.max_bytes:
            raise _too_large(entry, limits, "more bytes than")
        return data
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{entry.image_uri} does not exist (any more).", "missing") from error
    except Exception as error:  # each storage service has exceptions of its own
        raise DataError(
            f"{entry.image_uri} cannot be read: {type(error).__name__}: {error}."
        ) from error


def _too_large(entry: ArchiveEntry, limits: DecodeLimits, what: str) -> DataError:
    text = f"{entry.image_uri} has {what} the limit of {limits.max_bytes}."
    return DataError(text, "too_large")


def plain_address(uri: str) -> str:
    """An absolute address: a plain path on a local disk, else the URI without a slash at its end.

    Raises:
        DataError: the protocol is unknown or needs a package that is not installed.
    """
    address = storage.absolute_uri(uri.rstrip("/") or uri)
    try:
        fs, path = storage.file_system(address)
    except (ValueError, ImportError) as error:
        raise DataError(f"{uri} cannot be opened: {error}. Check its protocol.") from error
    return str(path) if isinstance(fs, LocalFileSystem) else address


def _reader(entry: ArchiveEntry, limits: DecodeLimits) -> Callable[[ArchiveEntry], bytes]:
    lowered = entry.archive.lower()
    if lowered.endswith(".zip"):
        return read_zip_member
    if lowered.endswith(COMPRESSED_TAR_SUFFIXES):
        return read_compressed_tar_member
    if is_row(entry.archive, entry.offset):
        return read_parquet_row
    return read_tar_member if lowered.endswith(".tar") else partial(_read_file, limits)


def _read_file(limits: DecodeLimits, entry: ArchiveEntry) -> bytes:
    """A file of its own: no more of it than its length or the limit, and one byte.

    What a manifest says of a file's length was never looked at, and a file may have grown.
    """
    most = limits.max_bytes if entry.length is None else entry.length
    data = fetch(entry.image_uri, 0, most + 1, entry.version)
    if entry.length is None:
        return data
    if len(data) > entry.length:
        raise DataError(
            f"{entry.image_uri} has more than its {entry.length} bytes: it changed since it was "
            "listed, or its manifest states a wrong size."
        )
    return whole(entry, data)
