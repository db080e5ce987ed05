"""Decoding in a process of its own, for pictures of which one may kill the process that decodes it.

A decoder that crashes, or the kernel where memory is short, ends a whole process: that of an actor,
with a backbone and the pictures beside it. Ray starts the actor again, with the same pictures. So
what is decoded for a second time is decoded here: the child that is killed costs one picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, BinaryIO, cast

import numpy as np

from nfbmr.data.decoding import DecodedPicture
from nfbmr.data.decoding_child import receive, send
from nfbmr.data.picture_file import DEFAULT_LIMITS, DecodeLimits
from nfbmr.errors import DecodeError, WorkerError

_COMMAND = (sys.executable, "-m", "nfbmr.data.decoding_child")
_SPARE_S = 60.0


class CarefulDecoder:
    """Decodes like ``decode_and_resize``, one picture at a time, in a child process.

    Args:
        command: starts the child; a test may start another one.
        spare_s: how much longer than twice its limit of CPU seconds a picture may take.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, spare_s: float = _SPARE_S) -> None:
        self._command = tuple(command)
        self._spare_s = spare_s
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def decode_and_resize(
        self,
        data: bytes,
        size_px: int | tuple[int, int],
        resampling: str = "bilinear",
        limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> DecodedPicture:
        """See ``decoding.decode_and_resize``.

        Raises:
            WorkerError: the child process cannot be started.
            DecodeError: as there; of kind ``killed`` where the child did not survive, ``too_slow``
                where it did not answer.
        """
        height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
        values = {"size_px": [height, width], "resampling": resampling, "limits": asdict(limits)}
        with self._lock:
            reply, was_late = self._asked(values, data, 2 * limits.max_cpu_s + self._spare_s)
        if reply is None and was_late:
            raise DecodeError("The picture was not decoded in time.", "too_slow")
        if reply is None:
            raise DecodeError(
                "The process that decoded the picture was killed, twice: the decoder crashed, or "
                "there was not enough memory for it.",
                "killed",
            )
        said, pixels = reply
        if "error" in said:
            raise DecodeError(said["error"], said["kind"])
        pixels_HWC = np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
        return DecodedPicture(pixels_HWC, said["height"], said["width"])

    def _asked(
        self, values: dict[str, Any], data: bytes, timeout_s: float
    ) -> tuple[tuple[dict[str, Any], bytes] | None, bool]:
        """The child's reply, if it lives to give one, and whether it was ended for being late."""
        child = self._running()
        late = threading.Event()

        def end_it() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(timeout_s, end_it)
        timer.start()
        try:
            send(cast(BinaryIO, child.stdin), values, data)
            reply = receive(cast(BinaryIO, child.stdout))
        except BrokenPipeError:
            reply = None
        finally:
            timer.cancel()
        if reply is None:
            self._end()
        return reply, late.is_set()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            # It must find what this process has found, wherever a job's files were unpacked.
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            if receive(cast(BinaryIO, self._child.stdout)) is None:
                raise WorkerError(
                    f"The process that decodes pictures did not start ({' '.join(self._command)}): "
                    "the worker's log says why. Mend the cause and run the same command again."
                )
        return self._child

    def _end(self) -> None:
        """End the child, if there is one."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            try:
                cast(BinaryIO, stream).close()
            except BrokenPipeError:  # What it was sent never reached it.
                continue
        self._child = None

    def close(self) -> None:
        """End the child process."""
        with self._lock:
            self._end()
