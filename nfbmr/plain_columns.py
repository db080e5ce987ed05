"""Parquet and Arrow data from a store is read as plain values, never as pickled Python objects.

Ray Data registers an Arrow extension type whose values are pickles: in a process that has imported
it, any Parquet file can hold such a column, and looking at a value would run what the file's writer
wanted. Everything that is read goes through ``plain`` first; a test checks that.
"""

from __future__ import annotations

from typing import Any, TypeVar

import pyarrow as pa

from nfbmr.errors import NfbmrError

_Source = TypeVar("_Source")


class ExtensionColumnError(NfbmrError, ValueError):
    """A file with a column of an extension type, which nfbmr never writes."""

    exit_code = 7


def plain(source: _Source) -> _Source:
    """The table, file or data set, if all of its columns are of Arrow's own types.

    Args:
        source: an Arrow table or data set, or an open Parquet file.

    Raises:
        ExtensionColumnError: a column has, or holds, an extension type.
    """
    schema: pa.Schema = getattr(source, "schema_arrow", None) or source.schema  # type: ignore[attr-defined]
    for field in schema:
        extension = _extension_in(field.type)
        if extension is not None:
            raise ExtensionColumnError(
                f"Column {field.name!r} is of the extension type {extension}, which nfbmr never "
                "writes and whose values may be pickled programs: it is not read. Find out who "
                "wrote the file, and remove it."
            )
    return source


def _extension_in(kind: Any) -> str | None:
    """Name of an extension type that is this type or nested in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return str(kind.extension_name)
    if pa.types.is_dictionary(kind):
        return _extension_in(kind.value_type)
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return next((name for name in map(_extension_in, inner) if name is not None), None)
