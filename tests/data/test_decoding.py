"""Every kind of picture decodes to what an independent calculation says."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nfbmr.data.decoding import (
    RESAMPLING,
    decode_and_resize,
    decode_mask,
    decode_rgb,
    resize_rgb,
)
from nfbmr.errors import ConfigError, DecodeError

LOSSLESS = ("PNG", "BMP", "TIFF")
ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def encode(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def over_black(colour_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    return colour_HWC * (alpha_HW[..., None] / 255.0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from(LOSSLESS))
@settings(max_examples=30, deadline=None)
def test_rgb_and_grey_come_back_exactly(height: int, width: int, seed: int, fmt: str) -> None:
    rgb = noise(height, width, 3, seed=seed)
    decoded = decode_rgb(encode(Image.fromarray(rgb), fmt))
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.dtype == np.uint8
    assert decoded.flags["C_CONTIGUOUS"]
    grey = rgb[..., 0].copy()
    np.testing.assert_array_equal(
        decode_rgb(encode(Image.fromarray(grey), fmt)), np.stack([grey] * 3, -1)
    )


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_a_fixed_range(fmt: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(values / 257 + 0.5).astype(np.uint8)
    decoded = decode_rgb(encode(Image.fromarray(values), fmt))
    np.testing.assert_array_equal(decoded, np.stack([expected] * 3, -1))
    dark = decode_rgb(encode(Image.fromarray(values[:4, :4].copy()), fmt))
    assert dark.max() == 3, "a dark picture must not be stretched"


def test_16_bit_colour_keeps_the_high_byte() -> None:
    """A PNG made by hand: Pillow writes none of 16-bit colour."""
    values_HWC = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    assert np.array_equal(decode_rgb(data), values_HWC >> 8)


def test_big_endian_16_bit_tiff() -> None:
    values = np.array([[0, 257], [65535, 300]], dtype=">u2")
    image = Image.frombytes("I;16B", (2, 2), values.tobytes())
    assert decode_rgb(encode(image, "TIFF"))[..., 0].tolist() == [[0, 1], [255, 1]]


def test_32_bit_integers_use_the_16_bit_range_or_are_refused() -> None:
    fits = Image.fromarray(np.array([[0, 65535]], dtype=np.int32))
    assert decode_rgb(encode(fits, "TIFF"))[0, :, 0].tolist() == [0, 255]
    for value in (-1, 65536):
        wild = Image.fromarray(np.array([[0, value]], dtype=np.int32))
        with pytest.raises(DecodeError, match=str(value)) as caught:
            decode_rgb(encode(wild, "TIFF"))
        assert caught.value.kind == "unsupported"


def test_float_tiff_is_0_to_1() -> None:
    values = np.array([[0.0, 0.5, 1.0], [1.01, -0.01, np.nan]], dtype=np.float32)
    decoded = decode_rgb(encode(Image.fromarray(values), "TIFF"))
    assert decoded[..., 0].tolist() == [[0, 128, 255], [255, 0, 0]]
    for value in (255.0, np.inf):
        wild = Image.fromarray(np.array([[0.0, value]], dtype=np.float32))
        with pytest.raises(DecodeError, match=r"expected 0\.\.1"):
            decode_rgb(encode(wild, "TIFF"))


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_alpha_is_laid_over_black(fmt: str) -> None:
    rgba = noise(6, 5, 4, seed=1)
    decoded = decode_rgb(encode(Image.fromarray(rgba), fmt))
    assert np.abs(decoded - over_black(rgba[..., :3], rgba[..., 3])).max() <= 1
    la = noise(6, 5, 2, seed=2)
    decoded = decode_rgb(encode(Image.fromarray(la, "LA"), fmt))
    assert np.abs(decoded - over_black(la[..., :1].repeat(3, -1), la[..., 1])).max() <= 1


def test_palette_with_and_without_transparency() -> None:
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    palette = np.array([[10, 20, 30], [200, 100, 50], [7, 7, 7]], dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG")), palette[indices])
    np.testing.assert_array_equal(decode_rgb(encode(image, "BMP")), palette[indices])
    seen = palette.copy()
    seen[1] = 0
    data = encode(image, "PNG", transparency=1)
    np.testing.assert_array_equal(decode_rgb(data), seen[indices])


def test_a_transparent_colour_without_alpha_channel() -> None:
    rgb = np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8)
    data = encode(Image.fromarray(rgb), "PNG", transparency=(9, 9, 9))
    assert decode_rgb(data).tolist() == [[[1, 2, 3], [0, 0, 0]]]


@pytest.mark.parametrize("fmt", LOSSLESS)
def test_one_bit(fmt: str) -> None:
    bits = noise(5, 11) > 127
    expected = np.stack([bits * np.uint8(255)] * 3, -1)
    np.testing.assert_array_equal(decode_rgb(encode(Image.fromarray(bits), fmt)), expected)


def test_cmyk_tiff_and_adobe_jpeg_agree() -> None:
    cmyk = np.full((16, 16, 4), (200, 30, 90, 40), dtype=np.uint8)
    cyan_to_yellow = 255.0 - cmyk[..., :3]
    expected = cyan_to_yellow * (255.0 - cmyk[..., 3:]) / 255.0
    image = Image.fromarray(cmyk, "CMYK")
    assert np.abs(decode_rgb(encode(image, "TIFF")) - expected).max() <= 1
    jpeg = encode(image, "JPEG", quality=100)
    assert b"Adobe" in jpeg
    assert np.abs(decode_rgb(jpeg) - expected).max() <= 4


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(fmt: str) -> None:
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    rgb = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), -1)
    decoded = decode_rgb(encode(Image.fromarray(rgb), fmt, quality=95))
    assert np.abs(decoded.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(fmt: str, orientation: int) -> None:
    # Flat 16-pixel blocks of six different greys, so that JPEG keeps them apart.
    blocks = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)
    stored = np.kron(blocks, np.ones((16, 16), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(fmt, {})
    data = encode(Image.fromarray(stored), fmt, exif=exif.tobytes(), **options)
    expected = ORIENTED[orientation](stored)
    decoded = decode_rgb(data)[..., 0].astype(int)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 6
    picture = decode_and_resize(data, 4)
    assert (picture.height, picture.width) == expected.shape


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage!",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*" + struct.pack(">IHHH", 8, 9, 0x0112, 3),
        b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 99, 0),
        b"Exif\0\0",
    ],
)
@pytest.mark.filterwarnings("error")
def test_damaged_exif_is_ignored_without_a_warning(exif: bytes) -> None:
    image = Image.fromarray(np.full((8, 16), 90, dtype=np.uint8))
    assert decode_rgb(encode(image, "JPEG", exif=exif)).shape == (8, 16, 3)


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_exif_bytes_leave_the_pixels_alone(exif: bytes) -> None:
    image = Image.fromarray(np.full((8, 8), 90, dtype=np.uint8))
    data = encode(image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + exif)
    assert (decode_rgb(data) == 90).all()


@pytest.mark.parametrize("resampling", list(RESAMPLING))
@pytest.mark.parametrize("size", [8, (5, 12)])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_decoding_and_resizing_is_decoding_then_resizing(
    resampling: str, size: int | tuple[int, int], fmt: str
) -> None:
    data = encode(Image.fromarray(noise(40, 64, 3)), fmt)
    picture = decode_and_resize(data, size, resampling)
    np.testing.assert_array_equal(
        picture.pixels_HWC, resize_rgb(decode_rgb(data), size, resampling)
    )
    assert picture.pixels_HWC.shape == ((8, 8, 3) if size == 8 else (5, 12, 3))
    assert picture.pixels_HWC.flags["C_CONTIGUOUS"]
    assert (picture.height, picture.width) == (40, 64)


def test_box_resampling_averages_the_source_area() -> None:
    image = noise(12, 8, 3)
    expected = image.reshape(3, 4, 2, 4, 3).mean((1, 3))
    # Pillow rounds twice, once per direction.
    assert np.abs(resize_rgb(image, (3, 2), "box") - expected).max() <= 1.0


def test_impossible_resizing_says_so() -> None:
    with pytest.raises(ConfigError, match="bilinear, bicubic, box, lanczos"):
        resize_rgb(noise(4, 4, 3), 2, "nearest")
    with pytest.raises(ConfigError, match="0 x 5"):
        resize_rgb(noise(4, 4, 3), (0, 5))
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(H, W, 3\)"):
        resize_rgb(noise(4, 4), 2)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_masks_of_every_mode(mode: str) -> None:
    truth = noise(7, 9) > 127
    grey = Image.fromarray(truth * np.uint8(255))
    if mode == "I;16":
        image = Image.fromarray(truth * np.uint16(1))
    elif mode == "P":  # white first: an index of zero is a defective pixel here
        image = Image.fromarray((~truth).astype(np.uint8), "P")
        image.putpalette(bytes([255, 255, 255, 0, 0, 0]))
    else:
        image = grey.convert(mode)
    mask = decode_mask(encode(image, "PNG"))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, truth)
