"""Pools of actors: as many as fit, as few as there is work for, growing where it is allowed."""

import traceback

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayTaskError

from nfbmr.errors import ConfigError, NfbmrError, RegistryError, StoreError, WorkerError
from nfbmr.resources import (
    FETCH_CPUS,
    actor_pool,
    fitting_actors,
    pool_sizes,
    ray_data_session,
)
from nfbmr.settings import RunSettings
from nfbmr.train.fit_capacity import slots_of


@pytest.mark.parametrize(
    ("run", "fitting", "batches", "on_cores", "on_gpus"),
    [
        (RunSettings(), 4, 100, (4, 4, 4), (4, 4, 4)),
        (RunSettings(), 4, 2, (2, 2, 2), (2, 2, 2)),
        (RunSettings(actors_max=2), 4, 100, (2, 2, 2), (2, 2, 2)),
        (RunSettings(actors_max=16), 4, 100, (4, 16, 4), (16, 16, 16)),
        (RunSettings(actors_min=1), 4, 100, (1, 4, 4), (1, 4, 4)),
        (RunSettings(actors_min=1, actors_max=16), 4, 100, (1, 16, 4), (1, 16, 4)),
        (RunSettings(actors_min=6), 4, 100, (4, 6, 4), (6, 6, 6)),
        (RunSettings(actors_min=3, actors_max=8), 1, 2, (1, 2, 1), (2, 2, 2)),
        (RunSettings(actors_max=8), 2, 0, (1, 1, 1), (1, 1, 1)),
    ],
)
def test_least_most_and_first_size(
    run: RunSettings,
    fitting: int,
    batches: int,
    on_cores: tuple[int, int, int],
    on_gpus: tuple[int, int, int],
) -> None:
    assert pool_sizes(run, fitting, batches, on_gpus=False) == on_cores
    assert pool_sizes(run, fitting, batches, on_gpus=True) == on_gpus


@given(st.data(), st.integers(1, 8), st.integers(0, 300), st.integers(0, 300), st.integers(0, 400))
def test_actors_on_cores_leave_some_to_the_tasks_that_fetch(
    data: st.DataObject, cpus_per_actor: int, actors_max: int, actors_min: int, batches: int
) -> None:
    """Found in review: sixteen took all twelve cores, and the run stood still until it stalled."""
    cores = data.draw(st.integers(cpus_per_actor, 256), label="cores")
    run = RunSettings(
        cpus_per_actor=cpus_per_actor,
        actors_max=actors_max,
        actors_min=min(actors_min, actors_max) if actors_max else actors_min,
    )
    least, most, first = pool_sizes(run, cores // cpus_per_actor, batches, on_gpus=False)
    assert 1 <= least <= first <= most
    assert first * cpus_per_actor * (1 - FETCH_CPUS) + FETCH_CPUS <= cores
    assert first == min(most, cores // cpus_per_actor)


def test_a_pool_on_cores_may_grow_but_begins_with_what_fits(local_ray: None) -> None:
    cores = int(ray.cluster_resources()["CPU"])
    pool = actor_pool(RunSettings(actors_max=cores + 9), batches=100)["compute"]
    assert (pool.min_size, pool.initial_size, pool.max_size) == (cores, cores, cores + 9)


def test_a_pool_that_cannot_be_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"actors_min = 3 is above run\.actors_max = 2"):
        RunSettings(actors_min=3, actors_max=2)


def test_without_gpus_actors_take_cores(local_ray: None) -> None:
    pool = actor_pool(RunSettings(), batches=100)
    assert "num_gpus" not in pool
    assert 0 < pool["num_cpus"] <= 1


@pytest.mark.parametrize(
    ("gpus", "share", "actors"),
    [(8, 0.6, 8), (8, 0.5, 16), (8, 1.0, 8), (8, 2.0, 4), (1, 0.3, 3), (3, 2.0, 1)],
)
def test_an_actor_lies_on_one_card_or_on_whole_ones(
    local_ray: None, gpus: int, share: float, actors: int
) -> None:
    """Found in review: of cards left over in pieces, actors were made that can never start."""
    assert fitting_actors(RunSettings(gpus=gpus, gpus_per_actor=share)) == actors


def test_gpus_that_start_on_demand_are_asked_for(local_ray: None) -> None:
    """A cluster that is scaled to zero shows no GPU; what is asked for makes it grow."""
    run = RunSettings(gpus=4, gpus_per_actor=0.5, gpus_per_fit=0.25, decode_threads=4)
    pool = actor_pool(run, batches=100, decodes=True)
    assert pool["compute"].max_size == 8
    assert pool["num_gpus"] == 0.5
    assert pool["num_cpus"] == 3.0
    assert slots_of(run, 100) == 16


@pytest.mark.parametrize("kind", [StoreError, RegistryError, WorkerError])
def test_what_a_worker_says_in_a_sentence_comes_back_as_it_was_said(
    kind: type[NfbmrError],
) -> None:
    """Also where its cause was of the same kind: the outermost sentence has what to do next."""
    try:
        try:
            raise kind("It is gone.")
        except NfbmrError as error:
            raise kind(f"{error} Then run the same command again.") from error
    except NfbmrError as error:
        failed = RayTaskError("MapBatches(Scorer)", traceback.format_exc(), error)
    with pytest.raises(kind) as caught, ray_data_session("scoring"):
        raise failed
    assert type(caught.value) is kind
    assert str(caught.value) == "It is gone. Then run the same command again."
