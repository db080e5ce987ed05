"""What Ray does again because a process died is done with more care."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from nfbmr.data.careful_decoding import CarefulDecoder
from nfbmr.data.decoding import DecodePicture, decode_and_resize


def is_repeated() -> bool:
    """Whether Ray runs this task again, or has started this actor again, after its process died.

    Ray repeats both without end, where a picture may be what kills the process.
    """
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    if context.get_actor_id() is not None:
        return bool(context.was_current_actor_reconstructed)
    # Ray 2.60 tells a task which attempt it is in its logs and here only.
    core_worker = ray._private.worker.global_worker.core_worker
    return bool(core_worker.get_current_task_attempt_number() > 0)


@contextmanager
def decoder_of_this_attempt() -> Iterator[DecodePicture]:
    """What a task decodes with: a child process where it is run again."""
    if not is_repeated():
        yield decode_and_resize
        return
    careful = CarefulDecoder()
    try:
        yield careful.decode_and_resize
    finally:
        careful.close()
