"""The process that ``careful_decoding`` hands pictures to: requests on its input, pixels back.

A request and a reply are a JSON object with its length before it (4 bytes, big-endian), then as
many bytes as the object says: the encoded picture, or the pixels. The first reply is to no request:
it says that the process is there.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DecodeError

_LENGTH = struct.Struct(">I")
_BYTES_PER_PIXEL = 21
"""While a picture of floats is converted, the most that was measured (``decoding_room``)."""
_SPARE_BYTES = 256 * 2**20
BYTES = "bytes"
"""Of the object: how many bytes follow it."""


def send(stream: BinaryIO, values: dict[str, Any], data: bytes) -> None:
    """Write a request or a reply."""
    words = json.dumps({**values, BYTES: len(data)}).encode()
    stream.write(_LENGTH.pack(len(words)) + words + data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read a request or a reply; None where the other side has ended."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    words = stream.read(*_LENGTH.unpack(length))
    try:
        values: dict[str, Any] = json.loads(words)
    except ValueError:
        return None
    data = stream.read(values[BYTES])
    return (values, data) if len(data) == values[BYTES] else None


def _address_space_bytes() -> int | None:
    """What this process has mapped; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


def bound_memory(start_bytes: int | None, limits: DecodeLimits) -> None:
    """Let this process map what the largest picture allowed takes, and no more.

    In a container the kernel may end all processes where one takes too much (Kubernetes sets
    ``memory.oom.group``), and with it the one that should outlive this. A decoder that is refused
    memory here costs its picture alone.

    Args:
        start_bytes: mapped before the first picture; None bounds nothing.
        limits: of the next picture.
    """
    if start_bytes is None:
        return
    most = start_bytes + _BYTES_PER_PIXEL * limits.max_pixels + 2 * limits.max_bytes + _SPARE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Decode what is asked for until the input ends."""
    # Where memory is short, the kernel should end this process, not the one with the network.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    start_bytes = _address_space_bytes()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # A decoder that prints must not be taken for pixels.
    send(replies, {}, b"")
    while (request := receive(requests)) is not None:
        values, data = request
        limits = DecodeLimits(**values["limits"])
        bound_memory(start_bytes, limits)
        try:
            found = decode_and_resize(data, tuple(values["size_px"]), values["resampling"], limits)
        except DecodeError as error:
            send(replies, {"error": str(error), "kind": error.kind}, b"")
            continue
        except MemoryError:
            words = f"The picture of {len(data)} bytes takes too much memory to decode."
            send(replies, {"error": words, "kind": "too_large"}, b"")
            continue
        size = {"height": found.height, "width": found.width}
        send(replies, size, found.pixels_HWC.tobytes())


if __name__ == "__main__":
    main()
