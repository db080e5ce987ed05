"""The stages of the scoring pipeline that run in Ray: fetch and decode, then score and commit.

A unit travels as one row, so that no stage can split it: its pictures' names as JSON and the
pixels of those that could be decoded as one ``uint8`` buffer.

Shapes: B pictures of a unit, H, W height and width of the backbone's input or of the map.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import holder, read_entry
from nfbmr.data.content import content_hash
from nfbmr.data.decoding import decode_and_resize
from nfbmr.errors import STORE_ERRORS, DataError, DecodeError, NfbmrError
from nfbmr.model.detector import Detector
from nfbmr.model.runner import BackboneRunner
from nfbmr.model.scoring import map_peak
from nfbmr.registry import load_detector
from nfbmr.score.heads_cache import HeadsCache
from nfbmr.score.plan import PlannedModel, PlannedPicture, PlannedUnit
from nfbmr.score.plan_files import unit_pictures
from nfbmr.score.schema import ERROR, OK, missing_map
from nfbmr.score.units import write_unit
from nfbmr.settings import RunSettings

_FETCH_THREADS = 8

_DECODED = pa.schema(
    [
        ("unit", pa.string()),
        ("category", pa.string()),
        ("pictures", pa.string()),
        ("pixels", pa.large_binary()),
        ("fetch_s", pa.float64()),
        ("decode_s", pa.float64()),
    ]
)


@dataclass
class FetchedPicture:
    """A planned picture after fetching and decoding, without its pixels.

    Attributes:
        image_uri: see ``PlannedPicture``.
        archive: see ``PlannedPicture``.
        member: see ``PlannedPicture``.
        content_hash: of the encoded bytes, where they could be read.
        image_height: of the decoded picture, pixels.
        image_width: of the decoded picture, pixels.
        error: why there are no pixels.
    """

    image_uri: str
    archive: str
    member: str
    content_hash: str | None = None
    image_height: int | None = None
    image_width: int | None = None
    error: str | None = None


class _Versions:
    """The versions of archives as they are now, looked up once per unit."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def check(self, entry: ArchiveEntry, planned: str) -> None:
        """Refuse a picture whose file is not the one that was listed.

        Raises:
            DataError: the file changed, or is gone.
        """
        uri = holder(entry)
        try:
            if uri not in self._found:
                self._found[uri] = storage.file_version(uri)
        except FileNotFoundError as error:
            raise DataError(f"{uri} does not exist (any more).") from error
        except STORE_ERRORS as error:
            raise DataError(f"{uri} cannot be read: {error}.") from error
        if self._found[uri] != planned:
            raise DataError(
                f"{uri} changed since the run was planned: score it in a run of its own."
            )


class Decoder:
    """Fetches and decodes the pictures of a unit in a CPU task.

    Args:
        models: the plan's models; they say to which size a category's pictures are brought.
        model_errors: why the other categories have none.
        output: of the run, where the plan lies.
        run_id: of the scoring run.
    """

    def __init__(
        self,
        models: Mapping[str, PlannedModel],
        model_errors: Mapping[str, str],
        output: str,
        run_id: str,
    ) -> None:
        self.models = dict(models)
        self.model_errors = dict(model_errors)
        self.output = output
        self.run_id = run_id

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of ``PlannedUnit`` into rows with pixels."""
        rows = [self.decode(row) for row in batch.to_pylist()]
        return pa.Table.from_pylist(rows, schema=_DECODED)

    def decode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Fetch all pictures of a unit at once, then decode one after the other."""
        started = time.perf_counter()
        unit = PlannedUnit(**row)
        planned = unit_pictures(self.output, self.run_id, unit)
        versions = _Versions()
        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            fetched = list(pool.map(lambda picture: self._fetch(picture, versions), planned))
        fetch_s = time.perf_counter() - started
        started = time.perf_counter()
        pixels = [self._decode(picture, data, unit.category) for picture, data in fetched]
        return {
            "unit": unit.name,
            "category": unit.category,
            "pictures": json.dumps([asdict(picture) for picture, _ in fetched]),
            "pixels": b"".join(data for data in pixels if data is not None),
            "fetch_s": fetch_s,
            "decode_s": time.perf_counter() - started,
        }

    def _fetch(
        self, planned: PlannedPicture, versions: _Versions
    ) -> tuple[FetchedPicture, bytes | None]:
        picture = FetchedPicture(planned.image_uri, planned.archive, planned.member)
        picture.error = planned.problem or self.model_errors.get(planned.category)
        if picture.error is not None:
            return picture, None
        entry = ArchiveEntry(planned.archive, planned.member, planned.offset, planned.length)
        try:
            if planned.version is not None:
                versions.check(entry, planned.version)
            data = read_entry(entry)
        except DataError as error:
            picture.error = str(error)
            return picture, None
        picture.content_hash = content_hash(data)
        return picture, data

    def _decode(self, picture: FetchedPicture, data: bytes | None, category: str) -> bytes | None:
        if data is None:
            return None
        model = self.models[category]
        try:
            decoded = decode_and_resize(data, model.image_size_px, model.resampling)
        except DecodeError as error:
            picture.error = str(error)
            return None
        picture.image_height, picture.image_width = decoded.height, decoded.width
        return decoded.pixels_HWC.tobytes()


class Scorer:
    """An actor: one backbone on its device, heads as categories come by, a file per unit.

    Args:
        models: the plan's models.
        output: the run's output, where the unit's rows are written.
        run_id: of the scoring run.
        schema: of the rows.
        settings: resources.
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
        registry_uri: str,
        weights: str | None,
    ) -> None:
        self.models = dict(models)
        self.output = output
        self.run_id = run_id
        self.schema = schema
        self.settings = settings
        self.registry_uri = registry_uri
        self.weights = weights
        self.runners: dict[str, BackboneRunner] = {}
        self.heads: HeadsCache | None = None

    def _runner(self, detector: Detector) -> BackboneRunner:
        """The backbone of a detector; categories on the same one share it."""
        key = json.dumps(detector.backbone, sort_keys=True)
        if key not in self.runners:
            runner = BackboneRunner(
                detector.backbone_settings(self.weights),
                batch_size=self.settings.batch_size,
                threads=self.settings.cpus_per_actor,
            )
            detector.check_backbone(runner.backbone)
            self.runners[key] = runner
        return self.runners[key]

    def _detector(self, category: str) -> Detector:
        if self.heads is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self.heads = HeadsCache(self._load, self.settings.heads_cache_mib, device)
        return self.heads.get(category)

    def _load(self, category: str) -> Detector:
        return load_detector(self.models[category].version, self.registry_uri)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score and commit units; return one row of statistics for each."""
        return pa.Table.from_pylist([self.score_unit(row) for row in batch.to_pylist()])

    def score_unit(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Score the pictures of one unit and write its rows in one atomic file."""
        pictures = [FetchedPicture(**values) for values in json.loads(row["pictures"])]
        readable = [picture for picture in pictures if picture.error is None]
        columns: dict[str, Sequence[Any]] = {}
        started = time.perf_counter()
        if readable:
            try:
                columns = self._score(row["category"], row["pixels"], len(readable))
            except NfbmrError as error:
                for picture in readable:
                    picture.error = str(error)
                readable = []
        forward_s = time.perf_counter() - started
        started = time.perf_counter()
        table = self._table(row["category"], pictures, columns)
        write_unit(storage.absolute_uri(self.output), row["unit"], table)
        return {
            "unit": row["unit"],
            "pictures": len(pictures),
            "failed": len(pictures) - len(readable),
            "fetch_s": row["fetch_s"],
            "decode_s": row["decode_s"],
            "forward_s": forward_s,
            "commit_s": time.perf_counter() - started,
        }

    def _score(self, category: str, pixels: bytes, count: int) -> dict[str, Sequence[Any]]:
        """Columns of the readable pictures, in order."""
        detector = self._detector(category)
        runner = self._runner(detector)
        size_bytes = len(pixels) // count
        view = memoryview(pixels)
        buffers = [view[i * size_bytes : (i + 1) * size_bytes] for i in range(count)]
        scores = detector.score_features(runner.features(buffers))
        peak_x_B, peak_y_B = map_peak(scores.map_BHW)
        score_B = scores.score_B.double().cpu().numpy()
        if not np.isfinite(score_B).all():
            bad = int((~np.isfinite(score_B)).sum())
            raise NfbmrError(
                f"{bad} scores of category {category!r} are not finite numbers: the model is "
                "damaged; fit the category again"
            )
        threshold = detector.threshold
        return {
            "score": score_B.tolist(),
            "p_value": detector.calibration.p_values(score_B).tolist(),
            "calibration_size": [detector.calibration.n] * count,
            "is_anomalous": (score_B > threshold).tolist(),
            "threshold": [threshold] * count,
            "anomaly_map": list(_half_precision(scores.map_BHW.flatten(1))),
            "map_height": [scores.map_BHW.shape[1]] * count,
            "map_width": [scores.map_BHW.shape[2]] * count,
            "peak_x": peak_x_B.tolist(),
            "peak_y": peak_y_B.tolist(),
        }

    def _table(
        self,
        category: str,
        pictures: Sequence[FetchedPicture],
        columns: Mapping[str, Sequence[Any]],
    ) -> pa.Table:
        """All rows of a unit: a row per picture, with nulls where there is no score."""
        model = self.models.get(category)
        now = datetime.datetime.now(datetime.UTC)
        copied = [f.name for f in fields(FetchedPicture)]
        no_map = missing_map(self.schema)
        rows = []
        scored = 0
        for picture in pictures:
            row: dict[str, Any] = {name: getattr(picture, name) for name in copied}
            row["status"] = OK if picture.error is None else ERROR
            row["anomaly_map"] = no_map
            if picture.error is None:
                row |= {name: values[scored] for name, values in columns.items()}
                scored += 1
            row |= {
                "category": category,
                "model_name": model.version.name if model else None,
                "model_version": model.version.version if model else None,
                "run_id": self.run_id,
                "scored_at": now,
            }
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=self.schema)


def _half_precision(map_BP: torch.Tensor) -> NDArray[np.float16]:
    """Maps as float16; what is beyond its range becomes its largest number."""
    limit = float(np.finfo(np.float16).max)
    clipped: NDArray[np.float16] = map_BP.clamp(-limit, limit).cpu().numpy().astype(np.float16)
    return clipped
