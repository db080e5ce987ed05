"""Shares of a cluster: several workers for what is large, whole GPUs where shares do not add up."""

from dataclasses import replace

import pytest
import ray
from hypothesis import example, given
from hypothesis import strategies as st

from nfbmr.resources import actor_pool
from nfbmr.settings import NightSettings, RunSettings
from nfbmr.train import fit_capacity
from nfbmr.train.fit_capacity import (
    FitRoom,
    FitShare,
    _gpu_slots,
    share_of,
    slots_of,
    undivided,
    within,
)

NIGHT = NightSettings(pictures_per_worker=100, workers_max=3)
CORES = RunSettings(cpus_per_fit=0.5)
GPUS = RunSettings(gpus=2, gpus_per_fit=0.25)


@pytest.mark.parametrize(
    ("pictures", "workers"), [(1, 1), (100, 1), (101, 2), (300, 3), (10_000, 3)]
)
def test_large_categories_get_several_workers_up_to_a_limit(
    local_ray: None, pictures: int, workers: int
) -> None:
    share = share_of(pictures, 8, CORES, NIGHT, 5)
    assert share == FitShare(workers, 0.5, 0.0, workers)
    assert share.resources == {"CPU": 0.5}


def test_never_more_workers_than_the_cluster_holds(local_ray: None) -> None:
    assert share_of(10_000, 2, CORES, NIGHT, 5).workers == 2
    assert share_of(10_000, 1, CORES, NIGHT, 5).workers == 1


def test_workers_of_one_fit_do_not_share_a_gpu(local_ray: None) -> None:
    slots = slots_of(GPUS, 5)
    assert slots == 8
    with pytest.MonkeyPatch.context() as patch:  # Of which other jobs take the rest.
        patch.setattr(fit_capacity, "_alive", lambda: [{"GPU": 8.0}])
        assert slots_of(GPUS, 5) == 8
    assert share_of(100, slots, GPUS, NIGHT, 5) == FitShare(1, 1.0, 0.25, 1)
    large = share_of(10_000, slots, GPUS, NIGHT, 5)
    assert (large.workers, large.gpus, large.slots) == (2, 1.0, 8)
    assert large.resources == {"GPU": 1.0}


@pytest.mark.parametrize(
    ("gpus", "share", "slots"), [(1, 0.25, 4), (2, 0.4, 4), (2, 0.5, 4), (4, 2.0, 2), (1, 0.3, 3)]
)
def test_shares_are_counted_gpu_by_gpu(gpus: float, share: float, slots: int) -> None:
    assert _gpu_slots(gpus, share) == slots


def test_what_ran_out_of_memory_gets_a_gpu_or_the_cluster_for_itself(local_ray: None) -> None:
    alone = undivided(FitShare(1, 1.0, 0.25, 1), 8)
    assert (alone.gpus, alone.slots) == (1.0, 4)
    assert undivided(FitShare(1, 0.5, 0.0, 1), 8).slots == 8


def test_cores_are_counted_node_by_node(local_ray: None) -> None:
    cores = int(ray.cluster_resources()["CPU"])
    assert slots_of(replace(CORES, cpus_per_fit=1.0), 5) == cores
    assert slots_of(CORES, 5) == 2 * cores
    assert slots_of(replace(CORES, cpus_per_fit=0.0), 1) == 1


def test_the_room_follows_nodes_that_come_and_go(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"CPU": 4.0}]
    monkeypatch.setattr(fit_capacity, "_alive", lambda: nodes)
    monkeypatch.setattr(fit_capacity, "_COUNT_EVERY_S", 0.0)
    room = FitRoom(RunSettings(), fits=2)
    assert room.share(50, NIGHT, alone=False) == FitShare(1, 2.0, 0.0, 1)
    assert (room.slots, room.share(250, NIGHT, alone=False).workers) == (2, 2)
    nodes.append({"CPU": 8.0})
    assert (room.slots, room.share(250, NIGHT, alone=False).workers) == (6, 3)
    assert room.share(50, NIGHT, alone=True) == FitShare(1, 2.0, 0.0, 6)
    nodes.clear()
    assert (room.slots, room.share(250, NIGHT, alone=False)) == (1, FitShare(1, 2.0, 0.0, 1))


@given(
    workers=st.integers(1, 8),
    gpus=st.sampled_from([0.1, 0.25, 0.3, 0.4, 1.0, 2.0]),
    each=st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0]),
    most=st.integers(0, 9),
)
@example(workers=1, gpus=0.25, each=1.0, most=0)
def test_actors_of_a_pass_in_the_place_of_a_fit_take_no_more_than_the_fit(
    workers: int, gpus: float, each: float, most: int
) -> None:
    """By default an actor takes a whole card, which four fits never leave free together."""
    run = RunSettings(gpus=4, gpus_per_actor=each, actors_max=most, actors_min=most)
    own = within(FitShare(workers, 1.0, gpus, workers), run)
    assert 0 < own.gpus_per_actor <= min(each, gpus)
    assert 1 <= own.actors_max <= (most or own.actors_max)
    assert own.actors_max * own.gpus_per_actor <= workers * gpus + 1e-6


def test_nor_more_cores(local_ray: None) -> None:
    run = RunSettings(cpus_per_actor=4, actors_min=3)
    own = within(FitShare(2, 2.0, 0.0, 2), run)
    assert (own.cpus_per_actor, own.actors_max) == (2, 2)
    pool = actor_pool(own, batches=100)
    assert pool["num_cpus"] < 2
    assert pool["compute"].max_size == 2
    assert within(FitShare(1, 0.5, 0.0, 1), run).actors_max == 1
