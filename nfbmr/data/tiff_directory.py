"""What a TIFF's directory may ask of a decoder, looked at before there is one.

Pillow makes an object of every strip that a directory names, and a Python number of every value
that it looks at, before anybody could look at the pixels or the time: some hundred bytes of memory
for one of the file.
"""

from __future__ import annotations

import struct

from nfbmr.errors import DecodeError

_MOST_VALUES = 2**18
"""Of one entry: the tiles of 16 x 16 pixels of a picture of 67 million, or one strip per row."""

_MOST_ENTRIES = 2**12
_STRIPS_AND_TILES = (273, 324)
_TYPES_THAT_STAY_BYTES = (1, 2, 6, 7)
_BIG = 43


def check_directory(data: bytes) -> None:
    """Refuse a TIFF whose first directory names more strips or values than a picture has.

    Args:
        data: of the file. What is no whole directory passes: the decoder has a word for it.

    Raises:
        DecodeError: of kind ``too_large``.
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        entries = _entries(data, order)
    except struct.error:
        return
    for tag, kind, count in entries:
        is_numbers = kind not in _TYPES_THAT_STAY_BYTES or tag in _STRIPS_AND_TILES
        if is_numbers and count > _MOST_VALUES:
            raise DecodeError(
                f"The TIFF's tag {tag} has {count} values, more than the limit of {_MOST_VALUES}.",
                "too_large",
            )


def _entries(data: bytes, order: str) -> list[tuple[int, int, int]]:
    """Tag, type and count of each entry of the first directory (TIFF 6.0, section 2; BigTIFF).

    Raises:
        struct.error: the file ends before the directory does.
    """
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    is_big = version == _BIG
    (place,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, 8 if is_big else 4)
    number, entry = (f"{order}Q", f"{order}HHQ8x") if is_big else (f"{order}H", f"{order}HHI4x")
    if place > len(data):
        return []
    (count,) = struct.unpack_from(number, data, place)
    if count > _MOST_ENTRIES:
        raise DecodeError(
            f"The TIFF's directory has {count} entries, more than the limit of {_MOST_ENTRIES}.",
            "too_large",
        )
    first, step = place + struct.calcsize(number), struct.calcsize(entry)
    return [struct.unpack_from(entry, data, first + step * i) for i in range(count)]
