"""Files that would run a program if they were unpickled, and a watch for unpickling."""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def pickled(trace: Path) -> bytes:
    return pickle.dumps(Bomb(trace))


def parquet_with_a_bomb(trace: Path, columns: pa.Table, name: str) -> bytes:
    """The table, with one column as Ray Data's type for pickled objects."""
    metadata = {
        b"ARROW:extension:name": b"ray.data.arrow_pickled_object",
        b"ARROW:extension:metadata": b"",
    }
    index = columns.schema.get_field_index(name)
    values = pa.array([pickled(trace)] * max(1, len(columns)), pa.large_binary())
    field = pa.field(name, pa.large_binary(), metadata=metadata)
    sink = pa.BufferOutputStream()
    if len(columns) == 0:
        columns = pa.table(
            {
                n: pa.nulls(1, t)
                for n, t in zip(columns.schema.names, columns.schema.types, strict=True)
            }
        )
    pq.write_table(columns.set_column(index, field, values), sink)
    return sink.getvalue().to_pybytes()


_watching: list[list[str]] = []
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and _watching:
        _watching[-1].append(".".join(map(str, arguments)))


@contextmanager
def no_unpickling() -> Iterator[list[str]]:
    """Notes every class that this process looks up for a pickle while the block runs.

    An audit hook cannot be removed; it does nothing outside of the block.
    """
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()
