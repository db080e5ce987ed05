"""The actor of the scoring pipeline: decode a unit, score it, commit it.

Ray calls it from two threads (``resources.actor_pool``): one unit is decoded or committed while
another one's forward passes run. Only the forward passes are kept apart by a lock.
"""

from __future__ import annotations

import itertools
import math
import platform
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nfbmr import storage
from nfbmr.data.careful_decoding import CarefulDecoder
from nfbmr.data.decoding import DecodePicture, decode_and_resize
from nfbmr.data.decoding_budget import DecodingBudget
from nfbmr.data.decoding_room import DecodingRoom
from nfbmr.errors import (
    MissingFilesError,
    RegistryError,
    RegistryUnavailableError,
    StoreError,
    WeightsError,
)
from nfbmr.model.detector import Detector
from nfbmr.registry import Registry, load_detector
from nfbmr.score.decode import decode_pictures
from nfbmr.score.forward import ForwardPasses, ModelError
from nfbmr.score.forward_difference import NOT_COMPARED, NOT_COMPARED_BECAUSE
from nfbmr.score.metrics import ScoringMetrics
from nfbmr.score.plan import PlannedModel
from nfbmr.score.rows import RowMaker
from nfbmr.score.schema import MODEL
from nfbmr.score.stage_clock import CPU_COLUMNS, WALL_COLUMNS, StageClock
from nfbmr.score.store_watch import is_held, refusals
from nfbmr.score.unit_row import UnitPicture, bytes_of, pictures_from_json, values_of
from nfbmr.score.units import write_unit
from nfbmr.second_attempts import is_repeated
from nfbmr.settings import RunSettings
from nfbmr.store_faults import is_stores, patience

_CAREFUL_UNITS = 32
"""More than Ray Data sends an actor at the same time."""


class Scorer:
    """One backbone on its device, heads as categories come by, a file per unit.

    Args:
        models: the plan's models.
        output: the run's output, where the unit's rows are written.
        run_id: of the scoring run.
        schema: of the rows.
        settings: resources.
        decode_threads: that decode in this actor.
        registry_uri: for models whose files only MLflow can fetch.
        weights: where the backbone's weights are, if not where they were at training.
    """

    def __init__(
        self,
        models: Mapping[str, PlannedModel],
        output: str,
        run_id: str,
        schema: pa.Schema,
        settings: RunSettings,
        decode_threads: int,
        registry_uri: str,
        weights: str | None,
    ) -> None:
        self.models = dict(models)
        self.output = output
        self.registry = Registry(registry_uri)
        self.patience_s = settings.store_patience_s
        self.stall_timeout_s = settings.stall_timeout_s
        self.rows = RowMaker(self.models, run_id, schema)
        self.forward = ForwardPasses(self._load, settings, weights)
        self.metrics = ScoringMetrics()
        self.lock = threading.Lock()
        self.told = False
        room = DecodingRoom()
        self.decode_one = room.decode_and_resize if decode_threads > 1 else decode_and_resize
        self.careful, self.careful_lock = CarefulDecoder(), threading.Lock()
        self.careful_units = _CAREFUL_UNITS if is_repeated() else 0
        self.decode_threads = decode_threads
        self.threads = ThreadPoolExecutor(decode_threads, thread_name_prefix="nfbmr-decode")
        # The child decodes one at a time: in other threads pictures would wait for it with limits
        # that no longer hold.
        self.careful_thread = ThreadPoolExecutor(1, thread_name_prefix="nfbmr-careful")

    def _load(self, category: str) -> Detector:
        """The detector of a category, as it was when the run was planned.

        Raises:
            StoreError: registry or store failed for longer than their patience.
            RegistryError: they refuse it, or this node does not see where it lies.
            ModelError: it is damaged, gone, or another one by now. This alone is the category's
                matter: with the others all pictures that follow would become error rows.
        """
        model = self.models[category]
        try:
            with patience(self.patience_s):
                detector = self.registry.patiently(
                    lambda: load_detector(model.version, self.registry.uri), self.patience_s
                )
        except MissingFilesError as error:
            if _is_place_seen(model.version.source):
                raise ModelError(str(error)) from error
            raise RegistryError(
                f"{error} {platform.node()} does not see the place of any: mount it there, then "
                "run the same command again. What was finished stays."
            ) from error
        except RegistryError as error:
            is_gone = isinstance(error, RegistryUnavailableError)
            raise (StoreError if is_gone else RegistryError)(
                f"{error} Then run the same command again. What was finished stays."
            ) from error
        except WeightsError as error:
            raise (StoreError if is_stores(error) else ModelError)(str(error)) from error
        if detector.backbone != model.backbone:
            raise ModelError(
                f"The files of {model.version.name} version {model.version.version} name another "
                "backbone than when the run was planned: restore them in the registry's store."
            )
        return detector

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Decode, score and commit a batch of one unit; return a row of statistics."""
        row = values_of(batch)
        clock = StageClock()
        pictures = pictures_from_json(row["pictures"])
        if is_held(pictures):
            return pa.Table.from_pylist([_statistics(row, pictures, clock)])
        columns = self._columns(row["category"], pictures, batch, clock)
        with clock.stage("commit"):
            table = self.rows.table(row["category"], pictures, columns)
            output = storage.absolute_uri(self.output)
            write_unit(output, row["unit"], table, self.patience_s)
        statistics = {**_statistics(row, pictures, clock), **self._comparison_once()}
        kinds = [picture.error_kind for picture in pictures if picture.error_kind is not None]
        self.metrics.count(row["category"], statistics, kinds)
        return pa.Table.from_pylist([statistics])

    def _columns(
        self, category: str, pictures: Sequence[UnitPicture], batch: pa.Table, clock: StageClock
    ) -> dict[str, Sequence[Any]]:
        """Columns of the pictures that can be scored; the others get their error.

        Raises:
            NfbmrError: models or backbones cannot be had, which is no fault of the pictures.
        """
        if category not in self.models:
            return {}
        pixels_BHWC = self._pixels(category, pictures, batch, clock)
        if not len(pixels_BHWC):
            return {}
        try:
            with self.lock:
                columns = self.forward.columns(category, pixels_BHWC, clock)
            return _finite(columns, [picture for picture in pictures if picture.error is None])
        except ModelError as error:
            for picture in pictures:
                if picture.error is None:
                    picture.fail(str(error), MODEL)
            return {}

    def _comparison_once(self) -> Mapping[str, Any]:
        """What the fast forward passes changed, or why that is not known, told with one unit."""
        nothing = {**NOT_COMPARED, NOT_COMPARED_BECAUSE: None}
        if self.told:
            return nothing
        with self.lock:
            seen = None if self.told else self.forward.difference
            failure = None if self.told else self.forward.not_compared
            self.told = self.told or seen is not None or failure is not None
        columns = NOT_COMPARED if seen is None else seen.as_columns()
        return {**columns, NOT_COMPARED_BECAUSE: failure}

    def _pixels(
        self, category: str, pictures: Sequence[UnitPicture], batch: pa.Table, clock: StageClock
    ) -> NDArray[np.uint8]:
        """Pixels of the pictures without an error, decoded here unless they came decoded."""
        model = self.models[category]
        if not batch.column("pixels")[0].is_valid:
            encoded = bytes_of(batch, "encoded")
            decode_one, threads, number = self._decoder()
            budget = DecodingBudget(len(pictures), self.stall_timeout_s, number)
            return decode_pictures(pictures, encoded, model, threads, clock, decode_one, budget)
        size = model.image_size_px
        flat: NDArray[np.uint8] = np.frombuffer(bytes_of(batch, "pixels"), dtype=np.uint8)
        return flat.reshape(-1, size, size, 3)

    def _decoder(self) -> tuple[DecodePicture, ThreadPoolExecutor, int]:
        """What a unit's pictures are decoded with, in which threads, and how many these are.

        An actor that was started again first gets the units with which it died.
        """
        with self.careful_lock:
            if self.careful_units == 0:
                self.careful.close()
                return self.decode_one, self.threads, self.decode_threads
            self.careful_units -= 1
            return self.careful.decode_and_resize, self.careful_thread, 1


def _finite(
    columns: dict[str, Sequence[Any]], scored: Sequence[UnitPicture]
) -> dict[str, Sequence[Any]]:
    """The columns without the pictures whose scores are no finite numbers; those get an error."""
    finite = [math.isfinite(score) for score in columns["score"]]
    for picture, is_finite in zip(scored, finite, strict=True):
        if not is_finite:
            picture.fail(
                "its score is not a finite number: it is like no picture in training", MODEL
            )
    if all(finite):
        return columns
    return {name: list(itertools.compress(values, finite)) for name, values in columns.items()}


def _statistics(
    row: Mapping[str, Any], pictures: Sequence[UnitPicture], clock: StageClock
) -> dict[str, Any]:
    """What the driver is told of a unit."""
    return {
        "unit": row["unit"],
        "pictures": len(pictures),
        "failed": sum(picture.error is not None for picture in pictures),
        "encoded_bytes": sum(picture.encoded_bytes for picture in pictures),
        **{name: row[name] + clock.seconds[name] for name in (*WALL_COLUMNS, *CPU_COLUMNS)},
        **refusals(pictures),
    }


def _is_place_seen(source: str) -> bool:
    """Whether this node sees where versions' files lie: below a run's folder of the experiment's.

    A store that is asked by its address says itself what it does not have.
    """
    if urlsplit(source).scheme not in ("", "file"):
        return True
    return Path(storage.file_system(source)[1]).parents[2].is_dir()
