"""Decoding a unit: threads or one, a damaged picture leaves no gap among the pixels."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nfbmr.data.decoding import decode_and_resize
from nfbmr.model_version import ModelVersion
from nfbmr.score.decode import Decoder, decode_pictures
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
from tests.security.test_limits import jpeg_of_many_scans

SIZE_PX = 24
BOMBS = 8


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


DATA = [png(0), b"no picture", png(1), b"", png(2), png(3)[:200]]
GOOD = [0, 2, 4]


def planned_model() -> PlannedModel:
    version = ModelVersion("bottle", "nfbmr-bottle", "1", "", "", (), {}, 0.0)
    backbone = {"image_size_px": SIZE_PX, "resampling": "bilinear"}
    return PlannedModel(version, backbone, "", (1, 1, 1))


def unit() -> list[UnitPicture]:
    """The fourth could not be read: it has no bytes and its error already."""
    pictures = [UnitPicture(f"{i}.png", "archive", f"{i}.png", len(d)) for i, d in enumerate(DATA)]
    pictures[3].error = "gone"
    return pictures


@pytest.mark.parametrize("threads", [1, 4])
def test_pixels_are_those_of_the_good_pictures_in_order(threads: int) -> None:
    pictures, clock = unit(), StageClock()
    with ThreadPoolExecutor(threads) as pool:
        encoded = memoryview(b"".join(DATA))
        pixels_BHWC = decode_pictures(pictures, encoded, planned_model(), pool, clock)
    expected = np.stack([decode_and_resize(DATA[i], SIZE_PX).pixels_HWC for i in GOOD])
    assert np.array_equal(pixels_BHWC, expected)
    assert [i for i, picture in enumerate(pictures) if picture.error is None] == GOOD
    assert pictures[3].error == "gone"
    assert "no picture of a known format" in str(pictures[1].error)
    assert (pictures[4].image_height, pictures[4].image_width) == (42, 30)
    assert clock.seconds["decode_s"] > 0
    assert clock.seconds["decode_cpu_s"] > 0


def test_a_task_of_its_own_gives_the_same_and_drops_the_encoded_bytes() -> None:
    row = dict.fromkeys(UNIT_ROW.names, 0.0)
    row |= {"unit": "u", "category": "bottle", "pictures": pictures_to_json(unit())}
    row |= {"encoded": b"".join(DATA), "pixels": None}
    batch = pa.Table.from_pylist([row], schema=UNIT_ROW)
    decoded = Decoder({"bottle": planned_model()})(batch)
    expected = np.stack([decode_and_resize(DATA[i], SIZE_PX).pixels_HWC for i in GOOD])
    assert bytes(bytes_of(decoded, "pixels")) == expected.tobytes()
    assert not decoded.column("encoded")[0].is_valid
    errors = [picture.error for picture in pictures_from_json(values_of(decoded)["pictures"])]
    assert [i for i, error in enumerate(errors) if error is None] == GOOD
    assert Decoder({})(batch).equals(batch)


def test_a_unit_full_of_scan_bombs_is_over_before_the_run_stalls() -> None:
    """Found in review: with its own minute for each, a unit took longer than a run may stall."""
    bomb = jpeg_of_many_scans(300, 20_000)
    encoded = [*[bomb] * BOMBS, DATA[0]]
    pictures = [UnitPicture("u", "a", "m", encoded_bytes=len(data)) for data in encoded]
    row = dict.fromkeys(UNIT_ROW.names, 0.0)
    row |= {"unit": "u", "category": "bottle", "pictures": pictures_to_json(pictures)}
    row |= {"encoded": b"".join(encoded), "pixels": None}
    batch = pa.Table.from_pylist([row], schema=UNIT_ROW)
    decoded = Decoder({"bottle": planned_model()}, stall_timeout_s=1.0)(batch)
    found = pictures_from_json(values_of(decoded)["pictures"])
    assert [picture.error_kind for picture in found] == ["too_slow"] * BOMBS + [None]
    assert all("less than the usual 60 s" in str(picture.error) for picture in found[:BOMBS])
    pixels = decode_and_resize(DATA[0], SIZE_PX).pixels_HWC
    assert bytes(bytes_of(decoded, "pixels")) == pixels.tobytes()
