"""Names of pictures from their content, without decoding any: has a category changed at all?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import ray

from nfbmr.data.content import content_hash, read_bytes
from nfbmr.errors import DataError
from nfbmr.resources import FETCH_CPUS, ray_data_session
from nfbmr.settings import RunSettings

_READERS = 8


def content_hashes(
    uris: Sequence[str], run: RunSettings, progress: Callable[[int], None] = lambda done: None
) -> dict[str, str]:
    """The content hash of every picture that can be fetched. Needs a Ray session.

    Args:
        uris: of the pictures.
        run: resources.
        progress: called with how many are done.
    """
    wanted = sorted(set(uris))
    found: dict[str, str] = {}
    batches = max(1, -(-len(wanted) // run.decode_batch_size))
    with ray_data_session("reading pictures"):
        rows = ray.data.from_items([{"uri": u} for u in wanted], override_num_blocks=batches)
        hashed = rows.map_batches(
            _hashed,
            batch_size=run.decode_batch_size,
            batch_format="pyarrow",
            num_cpus=FETCH_CPUS,
        )
        for done, row in enumerate(hashed.iter_rows(), start=1):
            if row["hash"] is not None:
                found[row["uri"]] = row["hash"]
            progress(done)
    return found


def _hashed(batch: pa.Table) -> pa.Table:
    uris = batch.column("uri").to_pylist()
    with ThreadPoolExecutor(_READERS) as pool:
        hashes = pa.array(list(pool.map(_hash, uris)), pa.string())
    return batch.append_column("hash", hashes)


def _hash(uri: str) -> str | None:
    try:
        return content_hash(read_bytes(uri))
    except DataError:
        return None
