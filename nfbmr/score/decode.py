"""Second stage of the scoring pipeline: encoded bytes of a unit's pictures → pixels.

It runs in the threads of a scoring actor (Pillow leaves the interpreter's lock while it decodes),
so that encoded bytes travel between nodes and pixels don't. Where the nodes with GPUs have too few
cores for that, it is a task of its own on any node: ``run.decode = 'tasks'``.

Shapes: B pictures, H = W the size that the category's backbone wants.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nfbmr.data.decoding import DecodePicture, decode_and_resize
from nfbmr.data.decoding_budget import DecodingBudget
from nfbmr.errors import DecodeError
from nfbmr.score.plan import PlannedModel
from nfbmr.score.stage_clock import StageClock
from nfbmr.score.unit_row import (
    UNIT_ROW,
    UnitPicture,
    bytes_of,
    pictures_from_json,
    pictures_to_json,
    values_of,
)
from nfbmr.second_attempts import decoder_of_this_attempt


def decode_pictures(
    pictures: Sequence[UnitPicture],
    encoded: memoryview,
    model: PlannedModel,
    threads: ThreadPoolExecutor,
    clock: StageClock,
    decode_one: DecodePicture = decode_and_resize,
    budget: DecodingBudget | None = None,
) -> NDArray[np.uint8]:
    """Decode what was read; a picture that cannot be decoded gets its error.

    Args:
        pictures: of the unit; sizes and errors are written into them.
        encoded: their encoded bytes, one after the other.
        model: says to which size they are brought.
        threads: that decode.
        clock: counts the seconds.
        decode_one: decodes a picture.
        budget: of CPU seconds for the pictures together; by default each has its own limit.

    Returns:
        (B, H, W, 3), uint8: the pixels of the pictures that have no error, in order.
    """
    started = time.perf_counter()
    read = [picture for picture in pictures if picture.error is None]
    ends = np.cumsum([picture.encoded_bytes for picture in read], dtype=np.int64).tolist()
    size = model.image_size_px
    budget = budget or DecodingBudget(len(read))
    pixels_BHWC = np.empty((len(read), size, size, 3), dtype=np.uint8)

    def decode(index: int) -> float:
        began = time.thread_time()
        picture, end = read[index], ends[index]
        try:
            data = bytes(encoded[end - picture.encoded_bytes : end])
            decoded = budget.decode_and_resize(decode_one, data, size, model.resampling)
            pixels_BHWC[index] = decoded.pixels_HWC
            picture.image_height, picture.image_width = decoded.height, decoded.width
        except DecodeError as error:
            picture.fail(str(error), error.kind)
        return time.thread_time() - began

    cpu_s = sum(threads.map(decode, range(len(read))))
    clock.add("decode", time.perf_counter() - started, cpu_s)
    good = [index for index, picture in enumerate(read) if picture.error is None]
    return pixels_BHWC if len(good) == len(read) else pixels_BHWC[good]


class Decoder:
    """Decoding as a task of its own: pixels take the place of the encoded bytes.

    Args:
        models: the plan's models.
        stall_timeout_s: a run may stand still for so long; a unit's decoding takes a part of it.
    """

    def __init__(
        self, models: Mapping[str, PlannedModel], stall_timeout_s: float = math.inf
    ) -> None:
        self.models = dict(models)
        self.stall_timeout_s = stall_timeout_s

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Decode a batch of one unit (a row of ``UNIT_ROW``)."""
        row = values_of(batch)
        if row["category"] not in self.models:
            return batch
        pictures = pictures_from_json(row["pictures"])
        clock = StageClock()
        model, encoded = self.models[row["category"]], bytes_of(batch, "encoded")
        with ThreadPoolExecutor(1) as threads, decoder_of_this_attempt() as decode_one:
            budget = DecodingBudget(len(pictures), self.stall_timeout_s)
            pixels_BHWC = decode_pictures(
                pictures, encoded, model, threads, clock, decode_one, budget
            )
        decoded = {
            **row,
            "pictures": pictures_to_json(pictures),
            "pixels": pixels_BHWC.tobytes(),
            "decode_s": clock.seconds["decode_s"],
            "decode_cpu_s": clock.seconds["decode_cpu_s"],
        }
        return pa.Table.from_pylist([decoded], schema=UNIT_ROW)
