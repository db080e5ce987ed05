"""Which columns of a Parquet file or manifest say what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from nfbmr.errors import ConfigError, DataError

AUTOMATIC, PICTURES, MANIFEST = "auto", "pictures", "manifest"
TABLE_KINDS = (AUTOMATIC, PICTURES, MANIFEST)

URI_NAMES = ("image_uri", "uri", "url", "path", "image_path", "file", "file_name", "filename")
NAME_NAMES = ("name", "path", "file_name", "filename", "member", "image_uri", "uri")
_CATEGORY_NAMES = ("category",)
_TIME_NAMES = ("captured_at", "timestamp", "time")
_BYTES_FIELD, _PATH_FIELD = "bytes", "path"
_MOST_BYTES = 2**53
"""Of a picture; up to here floating point knows every whole number."""
_LAST_SECOND = 10**11
_NANOSECONDS = 1e-6
"""Of a millisecond in a nanosecond: the smallest unit."""
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_MOST_MS = 1e15
_NO_TIME = 9.2e18
"""Near the ends of 64 bits, where NumPy and pandas keep "not a time"."""


@dataclass(frozen=True)
class TableColumns:
    """What a user says about the columns of Parquet files and manifests.

    Attributes:
        kind: ``pictures`` (Parquet with the encoded bytes), ``manifest`` (of URIs), or ``auto``:
            a Parquet file with a column of bytes has the pictures themselves.
        image: the column of encoded bytes, or of URIs.
        name: the column of names of pictures in a Parquet file.
        category: the column of categories.
        captured_at: the column of times.

    A column that is not named is looked for by its usual names.
    """

    kind: str = AUTOMATIC
    image: str | None = None
    name: str | None = None
    category: str | None = None
    captured_at: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in TABLE_KINDS:
            raise ConfigError(f"--table {self.kind!r}: expected one of {', '.join(TABLE_KINDS)}.")

    def text(self) -> str:
        """All of it as one line, for names."""
        return f"{self.kind} {self.image} {self.name} {self.category} {self.captured_at}"


USUAL_COLUMNS = TableColumns()
"""Nothing is said: columns are found by their usual names."""


def bytes_column(schema: pa.Schema, columns: TableColumns) -> str | None:
    """The column path of encoded pictures, or None: bytes, or a struct with bytes and path."""
    names = [columns.image] if columns.image else schema.names
    for name in names:
        field = schema.field(name) if name in schema.names else None
        if field is None:
            continue
        if _is_bytes(field.type):
            return str(name)
        if pa.types.is_struct(field.type) and field.type.get_field_index(_BYTES_FIELD) >= 0:
            return f"{name}.{_BYTES_FIELD}"
    return None


def name_column(schema: pa.Schema, columns: TableColumns, image: str) -> str | None:
    """The column path of the names of pictures, or None."""
    if columns.name:
        return columns.name
    if image.endswith(f".{_BYTES_FIELD}"):
        struct = image.removesuffix(f".{_BYTES_FIELD}")
        if schema.field(struct).type.get_field_index(_PATH_FIELD) >= 0:
            return f"{struct}.{_PATH_FIELD}"
    return _first_text(schema, NAME_NAMES)


def uri_column(schema: pa.Schema, columns: TableColumns) -> str | None:
    """The column of URIs of a manifest, or None."""
    return columns.image or _first_text(schema, URI_NAMES)


def category_column(schema: pa.Schema, columns: TableColumns) -> str | None:
    """The column of categories, or None."""
    return columns.category or next((n for n in _CATEGORY_NAMES if n in schema.names), None)


def time_column(schema: pa.Schema, columns: TableColumns) -> str | None:
    """The column of times, or None."""
    return columns.captured_at or next((n for n in _TIME_NAMES if n in schema.names), None)


def check_columns(archive: str, schema: pa.Schema, named: Sequence[str | None]) -> None:
    """Refuse columns that are named but not there.

    Raises:
        DataError: naming those that are there.
    """
    for name in named:
        if name is not None and name.partition(".")[0] not in schema.names:
            raise DataError(f"{archive} has no column {name!r}: it has {', '.join(schema.names)}.")


def no_pictures_in(archive: str, schema: pa.Schema) -> DataError:
    """The error of a table that is neither pictures nor a manifest."""
    return DataError(
        f"{archive} has neither a column of encoded pictures nor one of URIs: it has "
        f"{', '.join(schema.names)}. Name the one that is meant with --image-column."
    )


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Names and categories of whatever type, as text; empty ones as nulls.

    Raises:
        pa.ArrowInvalid: they are no UTF-8, which Parquet does not look at.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = column.cast(pa.large_string())
    text.validate(full=True)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)


def as_lengths(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers of bytes in whatever form they were written; nulls for what is none.

    pandas writes a column in which one is missing as ``1234.0``, and a column ``size`` may mean
    something else altogether: then nothing is known.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_lengths(column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digits = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"\.0*$", "")
        is_whole = pc.match_substring_regex(digits, r"^[0-9]{1,18}$")
        return pc.if_else(is_whole, digits, pa.scalar(None, kind)).cast(pa.int64())
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return pa.chunked_array([pa.nulls(len(column), pa.int64())])
    numbers = column.cast(pa.float64(), safe=False)
    within = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, _MOST_BYTES))
    is_whole = pc.and_(within, pc.equal(pc.floor(numbers), numbers))
    return pc.if_else(is_whole, numbers, pa.scalar(None, pa.float64())).cast(pa.int64())


def as_times(archive: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times in milliseconds UTC: times without a zone are taken as UTC, numbers as Unix time.

    Numbers are seconds, or by their size milli-, micro- or nanoseconds. What is no moment of the
    years 1 to 9999 becomes null, as NaN does: it must not end a run.

    Raises:
        DataError: they cannot be read as times.
    """
    zoned, plain = pa.timestamp("ms", tz="UTC"), pa.timestamp("ms")
    try:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return _times_of_numbers(column).cast(zoned)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            numbers = pc.match_substring_regex(column, r"^\s*-?\d+(\.\d+)?\s*$")
            if len(column) > column.null_count and pc.all(numbers).as_py():
                return as_times(archive, name, pc.utf8_trim_whitespace(column).cast(pa.float64()))
            times = _times_of_text(column)
        elif pa.types.is_timestamp(column.type) and column.type.tz is not None:
            times = column.cast(zoned, safe=False)
        else:
            times = column.cast(plain, safe=False).cast(zoned)
        return _within_calendar(times.cast(pa.int64())).cast(zoned)
    except pa.ArrowException as error:
        raise DataError(
            f"{archive}: column {name!r} does not hold times ({error}). Expected for example "
            "2026-11-24T08:15:00Z; name another column with --time-column."
        ) from error


def _times_of_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unix times as milliseconds; their unit is told from the one in the middle.

    The largest may be what somebody's tools write for "never" or for "not known".
    """
    seconds = column.cast(pa.float64(), safe=False)
    is_number = pc.and_(pc.is_finite(seconds), pc.less(pc.abs(seconds), _NO_TIME))
    numbers = pc.if_else(is_number, seconds, pa.scalar(None, pa.float64()))
    sizes = pc.abs(numbers).filter(pc.greater(pc.abs(numbers), 0.0))
    middle = pc.quantile(sizes, interpolation="nearest")[0].as_py() or 0.0
    factor = 1000.0
    while middle >= _LAST_SECOND and factor > _NANOSECONDS:
        middle, factor = middle / 1000, factor / 1000
    ms = pc.round(pc.multiply(numbers, factor))
    fits = pc.less(pc.abs(ms), _MOST_MS)
    within = pc.if_else(fits, ms, pa.scalar(None, pa.float64()))
    return _within_calendar(within.cast(pa.int64()))


def _within_calendar(ms: pa.ChunkedArray) -> pa.ChunkedArray:
    """Milliseconds since 1970; null outside the years that Python's dates have."""
    within = pc.and_(pc.greater_equal(ms, _FIRST_MS), pc.less_equal(ms, _LAST_MS))
    return pc.if_else(within, ms, pa.scalar(None, pa.int64()))


def _times_of_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    zoned, plain = pa.timestamp("ms", tz="UTC"), pa.timestamp("ms")
    text = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    has_zone = pc.match_substring_regex(text, r"\d[Tt ].*(Z|[+-]\d\d(:?\d\d)?)$")
    if pc.any(has_zone).as_py():
        return text.cast(pa.timestamp("us", tz="UTC")).cast(zoned, safe=False)
    return text.cast(pa.timestamp("us")).cast(plain, safe=False).cast(zoned)


def _first_text(schema: pa.Schema, names: Sequence[str]) -> str | None:
    for name in names:
        if name in schema.names and _is_text(schema.field(name).type):
            return name
    return None


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
