"""The units of a plan: a table of which one is made into an object when it is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nfbmr.data.archive_entry import joined

UNITS_PER_GROUP = 32
UNIT_BYTES = 2**28
"""Of encoded pictures in a unit, where their lengths are known or, in Parquet files, estimated."""
_UNITS_AT_ONCE = 4096

UNIT = pa.schema(
    [
        ("name", pa.string()),
        ("category", pa.string()),
        ("row_group", pa.int64()),
        ("start", pa.int64()),
        ("count", pa.int64()),
    ]
)
"""See ``PlannedUnit``."""


UNITS_PER_WAVE = 16_384
"""Units that go through Ray Data at a time: what it keeps of its input grows with it."""


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """The smallest piece of work that is committed.

    Attributes:
        name: made of what it holds.
        category: of all its pictures.
        row_group: of the plan's pictures.
        start: of its first picture in the row group.
        count: of its pictures.
    """

    name: str
    category: str
    row_group: int
    start: int
    count: int


class Units(Sequence[PlannedUnit]):
    """Units in the order of the plan's pictures.

    A hundred million pictures are one and a half million units: as a table they take 100 MB.

    Args:
        table: rows of ``UNIT``.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()

    def __reduce__(self) -> tuple[Callable[[bytes], Units], tuple[bytes]]:
        """As Arrow's own format: a slice of units takes no others with it to a worker."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return _units_from, (sink.getvalue().to_pybytes(),)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> PlannedUnit: ...

    @overload
    def __getitem__(self, index: slice) -> Units: ...

    def __getitem__(self, index: int | slice) -> PlannedUnit | Units:
        if isinstance(index, slice):
            rows = range(*index.indices(len(self)))
            if rows.step == 1:
                return Units(self.table.slice(rows.start, len(rows)))
            return Units(self.table.take(pa.array(rows, pa.int64())))
        if not -len(self) <= index < len(self):
            raise IndexError(f"unit {index} of {len(self)}")
        return PlannedUnit(**self.table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[PlannedUnit]:
        for start in range(0, len(self), _UNITS_AT_ONCE):
            for row in self.table.slice(start, _UNITS_AT_ONCE).to_pylist():
                yield PlannedUnit(**row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and bool(self.table.equals(other.table))

    def __hash__(self) -> int:
        return hash(tuple(self.table.column("name").to_pylist()))

    def without(self, names: Collection[str]) -> Units:
        """The units of other names, in order."""
        found = pc.is_in(self.table.column("name"), value_set=pa.array(list(names), pa.string()))
        return Units(self.table.filter(pc.invert(found)))

    def named(self, names: Collection[str]) -> Units:
        """The units of these names, in order."""
        found = pc.is_in(self.table.column("name"), value_set=pa.array(list(names), pa.string()))
        return Units(self.table.filter(found))

    def of_categories(self, categories: Collection[str]) -> Units:
        """The units of these categories, in order."""
        wanted = pa.array(list(categories), pa.string())
        return Units(self.table.filter(pc.is_in(self.table.column("category"), value_set=wanted)))

    def one_of_each_category_first(self) -> Units:
        """The same units, with the first of every category before all others."""
        codes = self.table.column("category").combine_chunks().dictionary_encode().indices
        _, firsts = np.unique(codes.to_numpy(), return_index=True)
        rest = np.delete(np.arange(len(self)), firsts)
        return Units(self.table.take(pa.array(np.concatenate([np.sort(firsts), rest]))))

    @property
    def row_groups(self) -> int:
        """One more than the number of the last row group that a unit lies in."""
        return int(pc.max(self.table.column("row_group")).as_py()) + 1 if len(self) else 0

    def moved(self, row_groups: int) -> Units:
        """The same units, so many row groups later."""
        index = UNIT.get_field_index("row_group")
        later = pc.add(self.table.column(index), row_groups)
        return Units(self.table.set_column(index, UNIT.field(index), later))

    def by_category(self) -> Units:
        """Sorted by category; within one as they are."""
        return Units(sorted_by_category(self.table))

    @property
    def pictures(self) -> int:
        """How many the units hold."""
        return int(pc.sum(self.table.column("count")).as_py() or 0)

    def pictures_by_category(self) -> dict[str, int]:
        """How many pictures each category has."""
        counts = self.table.group_by("category").aggregate([("count", "sum")])
        columns = (counts.column(name).to_pylist() for name in ("category", "count_sum"))
        return dict(zip(*columns, strict=True))

    def pictures_by_row_group(self) -> list[int]:
        """How many pictures each row group of the plan has, in order."""
        counts = np.bincount(self._numbers("row_group"), weights=self._numbers("count"))
        return [int(count) for count in counts]

    def _numbers(self, column: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = self.table.column(column).to_numpy()
        return values


def _units_from(data: bytes) -> Units:
    with pa.ipc.open_stream(data) as reader:
        return Units(reader.read_all())


def sorted_by_category(table: pa.Table) -> pa.Table:
    """Rows sorted by their column ``category``; within one as they are."""
    encoded = table.column("category").combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    order = np.argsort(rank[encoded.indices.to_numpy()], kind="stable")
    return table.take(pa.array(order))


def cut_units(ordered: pa.Table, unit_size: int) -> Units:
    """Units of at most so many pictures and ``UNIT_BYTES``, each of one category.

    A task holds all pictures of a unit, and an actor those of several. A picture that is larger
    alone is a unit of its own; one of unknown length counts as nothing.

    Args:
        ordered: rows of ``PICTURES``, sorted by category.
        unit_size: pictures per unit at most.
    """
    encoded = ordered.column("category").combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    ends = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
    firsts = np.concatenate([[0], ends[:-1]])
    runs = zip(firsts, ends, strict=True)
    start_U = np.concatenate([np.arange(first, end, unit_size) for first, end in runs])
    start_U = _cut_by_bytes(start_U, ordered.column("length"))
    end_U = np.append(start_U[1:], len(codes))
    group_U = np.arange(len(start_U)) // UNITS_PER_GROUP
    categories = encoded.dictionary.take(pa.array(codes[start_U]))
    arrays = [
        pa.array(_names(ordered, start_U, end_U, categories.to_pylist())),
        categories.cast(pa.string()),
        pa.array(group_U),
        pa.array(start_U - start_U[group_U * UNITS_PER_GROUP]),
        pa.array(end_U - start_U),
    ]
    return Units(pa.table(arrays, schema=UNIT))


def _cut_by_bytes(start_U: NDArray[np.int64], lengths: pa.ChunkedArray) -> NDArray[np.int64]:
    """The beginnings of units, with further ones where a unit would hold too many bytes."""
    length_P: NDArray[np.int64] = pc.fill_null(lengths, 0).to_numpy()
    sum_P = np.concatenate([[0], np.cumsum(length_P)])
    end_U = np.append(start_U[1:], len(length_P))
    further: list[int] = []
    for unit in np.flatnonzero(sum_P[end_U] - sum_P[start_U] > UNIT_BYTES):
        first, end = int(start_U[unit]), int(end_U[unit])
        while sum_P[end] - sum_P[first] > UNIT_BYTES and end - first > 1:
            # The first picture that does not fit any more, but never the unit's own first.
            fits = int(np.searchsorted(sum_P, sum_P[first] + UNIT_BYTES, side="right")) - 1
            first = max(first + 1, fits)
            if first >= end:
                break
            further.append(first)
    return np.sort(np.append(start_U, np.array(further, dtype=np.int64)))


def unit_name(pictures: pa.Table, category: str) -> str:
    """The name of a unit of these pictures, rows of ``PICTURES``."""
    bounds = np.array([0]), np.array([len(pictures)])
    return _names(pictures, *bounds, [category])[0]


def _names(
    ordered: pa.Table,
    start_U: NDArray[np.int64],
    end_U: NDArray[np.int64],
    categories: Sequence[str],
) -> list[str]:
    """Hashes of the units' pictures: name, length and version, a line for each."""
    names: list[str] = []
    for first in range(0, len(start_U), _UNITS_AT_ONCE):
        last = min(first + _UNITS_AT_ONCE, len(start_U)) - 1
        base = start_U[first]
        lines = _lines(ordered.slice(base, end_U[last] - base))
        offsets = np.frombuffer(lines.buffers()[1], np.int64, len(lines) + 1, 8 * lines.offset)
        text = memoryview(lines.buffers()[2])
        for unit in range(first, last + 1):
            digest = hashlib.blake2b(f"{categories[unit]}\n".encode(), digest_size=12)
            start, end = offsets[start_U[unit] - base], offsets[end_U[unit] - base]
            digest.update(text[start:end])
            names.append(digest.hexdigest())
    return names


def _lines(pictures: pa.Table) -> pa.LargeStringArray:
    columns = [
        pictures.column("image_uri"),
        pictures.column("length").cast(pa.large_string()),
        pictures.column("version").cast(pa.large_string()),
    ]
    known = [pc.fill_null(column, "None") for column in columns]
    lines = joined(*known, separator=" ")
    return joined(lines, "\n", separator="").combine_chunks()
