"""Names of pictures from their content, without decoding any: has a category changed at all?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray

from nfbmr.data.content import content_hash
from nfbmr.errors import DataError
from nfbmr.resources import FETCH_CPUS, ray_data_session
from nfbmr.settings import RunSettings
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.store_silence import PatientReader, indexed, is_silence, picture_of
from nfbmr.watchdog import finished_rows_of

_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("variant", pa.int32()),
        ("entry", pa.string()),
        ("error", pa.string()),
        ("busy", pa.bool_()),
        ("computed", pa.bool_()),
    ]
)
_READERS = 8


def content_hashes(
    pictures: Sequence[Picture],
    run: RunSettings,
    progress: Callable[[int], None] = lambda done: None,
    say: Callable[[str], object] = print,
) -> FeatureIndex:
    """The content hash of every picture that can be fetched. Needs a Ray session.

    Args:
        pictures: of no variant.
        run: resources.
        progress: called with how many are done.
        say: called with a sentence when a node was lost and what is left starts anew.

    Returns:
        The hashes as ``entries``, so that ``store_silence.settled`` can ask again for pictures that
        a store did not give.

    Raises:
        StoreError: where the pictures lie, nothing is given any more.
        StallError: nothing was read for ``run.stall_timeout_s``.
    """
    wanted = sorted(set(pictures), key=lambda picture: picture.uri)
    with ray_data_session("reading pictures"):
        rows = finished_rows_of(
            lambda left: _pipeline(left, run),
            {picture: picture for picture in wanted},
            picture_of,
            run.stall_timeout_s,
            say,
            "picture",
        )
        return indexed(rows, FeatureIndex("", {}, {}, {}, {}, 0), progress)


def _pipeline(pictures: Sequence[Picture], run: RunSettings) -> ray.data.Dataset:
    batches = max(1, -(-len(pictures) // run.decode_batch_size))
    rows = ray.data.from_items([{"uri": p.uri} for p in pictures], override_num_blocks=batches)
    return rows.map_batches(
        _hashed,
        batch_size=run.decode_batch_size,
        batch_format="pyarrow",
        num_cpus=FETCH_CPUS,
    )


def _hashed(batch: pa.Table) -> pa.Table:
    uris = batch.column("uri").to_pylist()
    reader = PatientReader()
    with ThreadPoolExecutor(_READERS) as pool:
        contents = pool.map(reader.read, uris)
        rows = [_row(uri, content) for uri, content in zip(uris, contents, strict=True)]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _row(uri: str, content: bytes | DataError) -> dict[str, Any]:
    row = {"uri": uri, "variant": 0, "busy": False, "computed": False}
    if isinstance(content, DataError):
        return {**row, "error": str(content), "busy": is_silence(content)}
    return {**row, "entry": content_hash(content)}
