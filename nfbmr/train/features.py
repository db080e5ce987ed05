"""One pass of Ray Data over the training pictures: decode, run the backbone, fill the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray

from nfbmr.data.content import content_hash
from nfbmr.data.decoding import DecodePicture
from nfbmr.data.decoding_budget import DecodingBudget
from nfbmr.data.synthetic_defects import cut_defect
from nfbmr.errors import DataError, DecodeError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.runner import BackboneRunner
from nfbmr.resources import FETCH_CPUS, actor_pool, cluster_gpus, ray_data_session
from nfbmr.second_attempts import decoder_of_this_attempt
from nfbmr.settings import RunSettings
from nfbmr.train.entry_names import defect_seed, entry_name
from nfbmr.train.feature_cache import FeatureCache, is_among
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
        ("pixels", pa.large_binary()),
    ]
)


_READERS = 8
"""Pictures that one decoding task fetches at the same time."""


def compute_features(
    pictures: Sequence[Picture],
    settings: BackboneSettings,
    cache_root: str,
    run: RunSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    distrust: bool = False,
    say: Callable[[str], object] = print,
) -> FeatureIndex:
    """Make sure that the cache holds the features of every picture that can be read.

    Needs a Ray session. Encoded bytes are read and decoded in CPU tasks, which also look into the
    cache: a picture whose features are there is not decoded. Bytes travel as ``uint8``.

    What is there is learned from one listing. Whoever loads an entry checks it; where that fails,
    a second call with ``distrust`` reads every entry and computes those anew that are damaged.

    Args:
        pictures: what is wanted; duplicates are computed once.
        settings: the backbone.
        cache_root: folder or ``s3://`` prefix that all workers can reach.
        run: resources.
        progress: called with (done, total).
        distrust: look into entries instead of believing that they are whole.
        say: called with a sentence when a node was lost and what is left starts anew.

    Raises:
        StallError: nothing was computed for ``run.stall_timeout_s``.
        ConfigError: the backbone's settings do not fit.
        WeightsError: its weights cannot be had.
        StoreError: where the pictures lie, nothing is given any more.
    """
    wanted = sorted(set(pictures), key=lambda picture: (picture.uri, picture.variant))
    # Built here once: a wrong setting is one sentence now instead of a failed actor later.
    backbone = create_backbone(settings)
    # What was resolved here (name and layer from the weights' header) is what the actors build.
    settings = replace(backbone.settings)
    key = backbone.key()
    cache = FeatureCache(cache_root, key)
    known = None if distrust else ray.put(cache.names())
    start = partial(
        _pipeline,
        settings=settings,
        cache=cache,
        actor_arguments=(settings, cache_root, key, run),
        known=known,
        run=run,
    )
    with ray_data_session("computing features"):
        rows = finished_rows_of(
            start, {p: p for p in wanted}, picture_of, run.stall_timeout_s, say, "picture"
        )
        empty = FeatureIndex(key, backbone.identity(), {}, {}, {}, 0)
        return indexed(rows, empty, lambda done: progress(done, len(wanted)))


def _pipeline(
    pictures: Sequence[Picture],
    settings: BackboneSettings,
    cache: FeatureCache,
    actor_arguments: tuple[Any, ...],
    known: Any,
    run: RunSettings,
) -> ray.data.Dataset:
    batches = max(1, -(-len(pictures) // run.decode_batch_size))
    rows = ray.data.from_items(
        [{"uri": p.uri, "variant": p.variant} for p in pictures],
        override_num_blocks=batches,
    )
    decoded = rows.map_batches(
        _Decoder(settings, cache, known, run.stall_timeout_s),
        batch_size=run.decode_batch_size,
        batch_format="pyarrow",
        # Beside an actor on a node of one core no more than this is left.
        num_cpus=0.5 if cluster_gpus(run) > 0 else FETCH_CPUS,
    )
    return decoded.map_batches(
        _FeatureActor,
        fn_constructor_args=actor_arguments,
        batch_size=run.decode_batch_size,
        batch_format="pyarrow",
        **actor_pool(run, batches),
    )


class _Decoder:
    """Reads, names and decodes pictures whose features are not in the cache yet.

    Args:
        settings: of the backbone.
        cache: where features go.
        known: reference to the names in the cache; None to look into its entries instead.
        stall_timeout_s: the pass may stand still for so long; a task's decoding takes a part of it.
    """

    def __init__(
        self, settings: BackboneSettings, cache: FeatureCache, known: Any, stall_timeout_s: float
    ) -> None:
        self.settings = settings
        self.cache = cache
        self.known = known
        self.stall_timeout_s = stall_timeout_s

    def __call__(self, batch: pa.Table) -> pa.Table:
        names = None if self.known is None else ray.get(self.known)
        wanted = batch.to_pylist()
        reader = PatientReader()
        budget = DecodingBudget(len(wanted), self.stall_timeout_s)
        with ThreadPoolExecutor(_READERS) as pool, decoder_of_this_attempt() as decode_one:
            contents = pool.map(reader.read, [row["uri"] for row in wanted])
            rows = [
                self._row(row["uri"], row["variant"], content, names, decode_one, budget)
                for row, content in zip(wanted, contents, strict=True)
            ]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)

    def _row(
        self,
        uri: str,
        variant: int,
        content: bytes | DataError,
        names: Any,
        decode_one: DecodePicture,
        budget: DecodingBudget,
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"uri": uri, "variant": variant, "busy": False}
        if isinstance(content, DataError):
            return {**row, "error": str(content), "busy": is_silence(content)}
        row["entry"] = entry_name(content_hash(content), variant)
        if self._is_there(row["entry"], names):
            return row
        try:
            row["pixels"] = self._pixels(content, row["entry"], decode_one, budget)
        except DecodeError as error:
            row["error"] = str(error)
        return row

    def _is_there(self, entry: str, names: Any) -> bool:
        if names is None:
            return self.cache.read(entry) is not None
        return is_among(names, entry)

    def _pixels(
        self, data: bytes, entry: str, decode_one: DecodePicture, budget: DecodingBudget
    ) -> bytes:
        size, resampling = self.settings.image_size_px, self.settings.resampling
        pixels_HWC = budget.decode_and_resize(decode_one, data, size, resampling).pixels_HWC
        seed = defect_seed(entry)
        if seed is not None:
            pixels_HWC = cut_defect(pixels_HWC, seed)
        return pixels_HWC.tobytes()


class _FeatureActor:
    """Keeps one backbone loaded and writes the features of decoded pictures to the cache."""

    def __init__(
        self, settings: BackboneSettings, cache_root: str, key: str, run: RunSettings
    ) -> None:
        self.runner = BackboneRunner(
            settings, batch_size=run.batch_size, threads=run.cpus_per_actor
        )
        self.cache = FeatureCache(cache_root, key)

    def __call__(self, batch: pa.Table) -> pa.Table:
        pixels = batch.column("pixels").to_pylist()
        entries = batch.column("entry").to_pylist()
        to_compute = {
            entry: data for entry, data in zip(entries, pixels, strict=True) if data is not None
        }
        if to_compute:
            y_BCHW = self.runner.features(list(to_compute.values()))
            for entry, y_CHW in zip(to_compute, y_BCHW, strict=True):
                self.cache.write(entry, y_CHW)
        computed = pa.array([data is not None for data in pixels])
        return batch.drop_columns(["pixels"]).append_column("computed", computed)
