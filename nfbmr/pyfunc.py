"""How MLflow loads a registered detector: ``mlflow.pyfunc.load_model("models:/…").predict(…)``.

``MLmodel`` beside the detector's files names this module as its loader; nothing is unpickled. The
program that loads a model needs nfbmr installed, and the backbone's weights where it can read them.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nfbmr.errors import DataError, DecodeError, StoreError, WeightsError
from nfbmr.model.detector import Detector
from nfbmr.score.single import PictureScore, PictureScorer

WEIGHTS_VARIABLE = "NFBMR_BACKBONE_WEIGHTS"
OK, ERROR = "ok", "error"


class DetectorModel:
    """What MLflow calls a Python model: pictures in, a table out.

    Args:
        detector: of one category.
        weights: where the backbone's weights are, if not where they were at training.

    Raises:
        WeightsError: the backbone's weights cannot be read, or are others than at training.
    """

    def __init__(self, detector: Detector, weights: str | None = None) -> None:
        try:
            self._scorer = PictureScorer(detector, weights)
        except (WeightsError, StoreError) as error:
            raise WeightsError(
                f"{error} If the backbone's weights lie elsewhere here, set {WEIGHTS_VARIABLE} to "
                "their path or URI, or give mlflow.pyfunc.load_model model_config={'weights': …}."
            ) from error

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Score a batch of pictures.

        Args:
            model_input: the pictures: a table whose first column holds them, a dict of one such
                column, a list, or one array (N, H, W, 3). (MLflow's own ``predict`` makes a table
                of its input first, which it cannot of arrays alone: give those as
                ``{"image": [array, …]}``.) A picture is its encoded bytes, those bytes as Base64
                text, or an RGB array (H, W, 3) of uint8 (nested lists of numbers, too).
            params: ``anomaly_maps`` = true adds the column ``anomaly_map``, a list of lists.

        Returns:
            A row per picture, in order: ``status, error, score, threshold, p_value,
            p_value_floor, calibration_size, is_anomalous, peak_x, peak_y``. A picture that cannot
            be read has the status ``error``, a reason, and no score: ``None`` there, which a
            server answers as ``null`` (``NaN`` is no JSON).
        """
        with_maps = bool((params or {}).get("anomaly_maps"))
        found = self._score(list(_pictures(model_input)))
        return _none_for_missing(pd.DataFrame([self._row(score, with_maps) for score in found]))

    def _score(self, pictures: list[Any]) -> list[PictureScore]:
        results: dict[int, PictureScore] = {}
        pixels: dict[int, bytes] = {}
        for index, picture in enumerate(pictures):
            try:
                pixels[index] = self._scorer.pixels(_as_picture(picture))
            except (DataError, DecodeError) as error:
                results[index] = PictureScore(error=str(error))
        scores = self._scorer.score(list(pixels.values()))
        results.update(zip(pixels, scores, strict=True))
        return [results[index] for index in range(len(pictures))]

    def _row(self, found: PictureScore, with_maps: bool) -> dict[str, Any]:
        detector = self._scorer.detector
        peak_x, peak_y = found.peak or (None, None)
        row = {
            "status": ERROR if found.error else OK,
            "error": found.error,
            "score": found.score,
            "threshold": detector.threshold,
            "p_value": found.p_value,
            "p_value_floor": detector.calibration.p_value_floor,
            "calibration_size": detector.calibration.n,
            "is_anomalous": found.is_anomalous,
            "peak_x": peak_x,
            "peak_y": peak_y,
        }
        if with_maps:
            row["anomaly_map"] = None if found.map_HW is None else found.map_HW.tolist()
        return row


def _none_for_missing(table: pd.DataFrame) -> pd.DataFrame:
    """The table, with columns of objects where a number is missing."""
    for name in table.columns[table.isna().any()]:
        column = table[name].astype(object)
        table[name] = column.where(column.notna(), None)
    return table


def _pictures(model_input: Any) -> Iterable[Any]:
    if isinstance(model_input, pd.DataFrame):
        return [] if model_input.empty else model_input.iloc[:, 0].tolist()
    if isinstance(model_input, Mapping):
        return next(iter(model_input.values()), [])
    if isinstance(model_input, (bytes, str)):
        return [model_input]
    found: Iterable[Any] = model_input
    return found


def _as_picture(value: Any) -> bytes | NDArray[np.uint8]:
    """Encoded bytes or an RGB array, from whatever form it came in."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"A text of {len(value)} characters is no picture ({error}): expected encoded "
                "bytes as Base64, or a picture's array."
            ) from error
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    try:
        numbers = np.asarray(value)
    except ValueError as error:
        raise DataError(f"A {type(value).__name__} is no picture ({error}).") from error
    if numbers.dtype.kind not in "iu" or numbers.size == 0 or numbers.min() < 0:
        raise DataError(
            f"A {type(value).__name__} is no picture: expected encoded bytes, Base64 text or whole "
            "numbers from 0 to 255 of shape (height, width, 3)."
        )
    if numbers.max() > 255:
        raise DataError(f"A picture has the value {numbers.max()}: expected 0 to 255.")
    return numbers.astype(np.uint8)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> DetectorModel:
    """MLflow calls this with the folder of a version's files."""
    given = (model_config or {}).get("weights") or os.environ.get(WEIGHTS_VARIABLE)
    return DetectorModel(Detector.load(path), str(given) if given else None)
