"""What Ray does again after a process died knows that it is done again."""

import os
import signal

import ray

from nfbmr.second_attempts import is_repeated


def die_once() -> bool:
    """What a picture does that kills the process which decodes it."""
    if not is_repeated():
        os.kill(os.getpid(), signal.SIGKILL)
    return True


class DiesOnce:
    """An actor as Ray Data's pools have them."""

    def call(self) -> bool:
        return die_once()


def test_tasks_and_actors_know_that_they_are_run_again(local_ray: None) -> None:
    assert not is_repeated()
    assert not ray.get(ray.remote(num_cpus=0.5)(is_repeated).remote())
    task = ray.remote(num_cpus=0.5, max_retries=-1)(die_once)
    actor = ray.remote(num_cpus=0.5, max_restarts=-1, max_task_retries=-1)(DiesOnce).remote()
    assert ray.get([task.remote(), actor.call.remote()], timeout=60) == [True, True]
