"""A reckoning that keeps to simple laws, and fits a line of stations simulated event by event."""

import heapq
import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.benchmark.driver_cost import (
    DriverCosts,
    made_up_pictures,
    made_up_scores,
    measure_driver,
)
from nfbmr.benchmark.scale import (
    LISTED_UNIT_BYTES,
    NAME_BYTES,
    Cluster,
    Costs,
    Prices,
    driver_memory,
    forecast,
    merging_s,
    requests_bill,
    rows_in_file,
    station_rates,
)
from nfbmr.benchmark.scale_check import check_against
from nfbmr.benchmark.scale_limits import breaks
from nfbmr.benchmark.scale_report import costs_of, forecasts, read_jobs, scale_text
from nfbmr.errors import ConfigError
from nfbmr.score.listing_stream import CHUNK_PICTURES
from nfbmr.score.plan import PICTURES
from nfbmr.score.planned_units import UNITS_PER_WAVE, cut_units
from nfbmr.score.seen_names import SeenNames

COSTS = Costs(
    gpu_per_s=300,
    decode_cpu_s=0.015,
    fetch_s=0.01,
    commit_s=0.001,
    list_s=1e-5,
    plan_s=1.5e-5,
    plan_bytes=400,
    unit_bytes=180,
    unit_driver_s=0.005,
    wave_s=15,
    merge_s=2e-4,
    row_bytes=1200,
    encoded_bytes=700_000,
)
JOB = {
    "actors": 1,
    "cores": 2.0,
    "pictures": 1000,
    "unit_size": 64,
    "per_s": 30.0,
    "with_start_per_s": 20.0,
    "list_s": 0.5,
    "seconds": {"fetch_s": 5.0, "commit_s": 1.0},
    "cpu_seconds": {"decode_cpu_s": 8.0, "forward_cpu_s": 20.0},
}
DRIVER = DriverCosts(1.5e-5, 400, 180, 0.005, 2e-4, 1200)
pictures_strategy = st.integers(10**4, 10**10)
gpus_strategy = st.integers(1, 256)


@given(pictures_strategy, gpus_strategy)
def test_no_run_is_faster_than_its_slowest_station(pictures: int, gpus: int) -> None:
    cluster = Cluster(gpus)
    run = forecast(pictures, COSTS, cluster, Prices())
    assert run.per_s <= min(station_rates(COSTS, cluster).values()) * (1 + 1e-9)
    assert 0 < run.gpu_use <= 1
    assert run.per_s_by_station[run.slowest] == min(run.per_s_by_station.values())


@given(pictures_strategy, gpus_strategy)
def test_more_gpus_are_never_slower_and_more_pictures_never_cheaper(
    pictures: int, gpus: int
) -> None:
    run = forecast(pictures, COSTS, Cluster(gpus), Prices())
    assert forecast(pictures, COSTS, Cluster(gpus + 1), Prices()).total_s <= run.total_s
    assert forecast(2 * pictures, COSTS, Cluster(gpus), Prices()).cost > run.cost


@given(pictures_strategy, gpus_strategy)
def test_merging_is_work_shared_by_the_cores_but_never_less_than_a_file(
    pictures: int, gpus: int
) -> None:
    cluster = Cluster(gpus)
    work_s = pictures * COSTS.merge_s
    took_s = merging_s(pictures, COSTS, cluster)
    assert took_s >= work_s / (gpus * cluster.cores_per_gpu) * (1 - 1e-9)
    assert took_s >= min(pictures, rows_in_file(COSTS, cluster)) * COSTS.merge_s
    assert took_s <= work_s + rows_in_file(COSTS, cluster) * COSTS.merge_s


def simulated_s(pictures: int, costs: Costs, cluster: Cluster) -> float:
    """Event by event: units pass driver, fetch, decode and GPU, each with so many servers."""
    per_unit = cluster.unit_size
    cores = int(cluster.cores_per_gpu * cluster.gpus)
    stations = [
        (1, costs.unit_driver_s),
        (int(cluster.fetch_tasks_per_gpu * cluster.gpus), costs.fetch_s * per_unit),
        (cores, costs.decode_cpu_s * per_unit),
        (cluster.gpus, per_unit / costs.gpu_per_s),
        (cluster.gpus, per_unit * costs.commit_s),
    ]
    free = [[0.0] * servers for servers, _ in stations]
    ended = 0.0
    for unit in range(pictures // per_unit):
        if unit % UNITS_PER_WAVE == 0:  # All wait for the actors of a new wave.
            free = [[ended + costs.wave_s] * servers for servers, _ in stations]
        ready = 0.0
        for servers, (_, service_s) in zip(free, stations, strict=True):
            ready = max(ready, heapq.heappop(servers)) + service_s
            heapq.heappush(servers, ready)
        ended = max(ended, ready)
    return ended


@pytest.mark.parametrize(
    ("costs", "cluster"),
    [
        (COSTS, Cluster(2)),
        (COSTS, Cluster(4, cores_per_gpu=2)),
        (replace(COSTS, unit_driver_s=0.2), Cluster(4)),
        (replace(COSTS, fetch_s=1.0), Cluster(1, fetch_tasks_per_gpu=16)),
        (replace(COSTS, commit_s=0.02), Cluster(4)),
        (replace(COSTS, wave_s=3000), Cluster(4)),
    ],
    ids=["gpu", "decode", "driver", "fetch", "commit", "waves"],
)
def test_the_pace_is_that_of_a_simulation_by_events(costs: Costs, cluster: Cluster) -> None:
    pictures = (2 * UNITS_PER_WAVE + 4000) * cluster.unit_size
    roomy = replace(cluster, store_gets_per_s=1e9, store_puts_per_s=1e9, network_bytes_per_s=1e15)
    reckoned = forecast(pictures, costs, roomy, Prices())
    assert simulated_s(pictures, costs, cluster) == pytest.approx(reckoned.score_s, rel=0.02)
    ids = {"gpu", "decode", "driver, per unit", "fetch", "commit", "waves"}
    assert reckoned.slowest in ids


def test_what_breaks_is_named_with_a_size_and_a_remedy() -> None:
    found = breaks(COSTS, Cluster(1))
    assert found[-1].limit == "driver, memory"
    assert {b.limit for b in found} >= {"waves", "driver, planning", "store gets"}
    assert all(b.remedy and b.at for b in found)
    small = Cluster(1, driver_bytes=2**31)
    fits = forecast(10**6, COSTS, small, Prices())
    breaks_down = forecast(10**9, COSTS, small, Prices())
    assert fits.driver_fits
    assert not breaks_down.driver_fits


def test_names_that_may_come_twice_are_remembered_while_the_plan_is_made() -> None:
    repeating = replace(COSTS, name_bytes=NAME_BYTES)
    added = driver_memory(10**9, repeating, Cluster(1)) - driver_memory(10**9, COSTS, Cluster(1))
    listed = 10**9 / Cluster(1).unit_size * LISTED_UNIT_BYTES
    planning = CHUNK_PICTURES * COSTS.plan_bytes
    assert added == pytest.approx(10**9 * NAME_BYTES + planning - max(planning, listed))
    limits = [breaks(costs, Cluster(1))[-1].at for costs in (COSTS, repeating)]
    full_at = [int(at.partition(" ")[0].replace(",", "")) for at in limits]
    for costs, pictures in zip((COSTS, repeating), full_at, strict=True):
        memory = driver_memory(pictures, costs, Cluster(1))
        assert memory == pytest.approx(Cluster(1).driver_bytes, rel=1e-3)
    seen = SeenNames()
    seen.are_new(pa.chunked_array([[f"s3://b/{n}.png" for n in range(1000)]]))
    assert sum(run.nbytes for run in seen._runs) == 1000 * NAME_BYTES


@given(pictures_strategy, gpus_strategy)
def test_the_requests_have_a_bill_of_their_own(pictures: int, gpus: int) -> None:
    """However many GPUs and whatever they cost, the same requests are asked."""
    prices = Prices(thousand_gets=0.5, thousand_puts=7)
    run = forecast(pictures, COSTS, Cluster(gpus), prices)
    gets, puts = (run.requests[a] + run.requests[b] for a, b in (("get", "head"), ("list", "put")))
    assert run.requests_cost == pytest.approx(gets / 2000 + puts * 7 / 1000)
    assert run.requests_cost == run.as_dict()["requests_cost"]
    free = replace(prices, gpu_hour=0, core_hour=0)
    assert forecast(pictures, COSTS, Cluster(gpus), free).cost == pytest.approx(run.requests_cost)
    assert requests_bill(run.requests, replace(prices, thousand_gets=0, thousand_puts=0)) == 0


def test_a_measured_job_predicts_others_and_says_how_wrong_it_is() -> None:
    two = {**JOB, "actors": 2, "per_s": 50.0, "nodes": 2}
    (row,) = check_against([two, JOB], replace(COSTS, wave_s=10))
    assert row["nodes"] == 2
    assert row["slowest"] == "gpu", "starting actors is no part of the pace with actors up"
    listed_s, merged_s = 1000 * COSTS.plan_s, 1000 * COSTS.merge_s
    whole_s = 10 + 1000 / row["predicted_per_s"] + listed_s + merged_s
    assert row["predicted_whole_per_s"] == pytest.approx(1000 / whole_s)
    assert row["whole_error"] == pytest.approx(1000 / whole_s / 20 - 1)
    assert row["predicted_per_s"] == pytest.approx(60.0)
    assert row["error"] == pytest.approx(0.2)
    busy = {**JOB, "cpu_seconds": {"decode_cpu_s": 50.0}}
    (row,) = check_against([busy, two], COSTS)
    assert row["predicted_per_s"] == pytest.approx(40.0), "two cores do no more than that"


def test_the_tables_from_a_file_of_measured_jobs(tmp_path: Path) -> None:
    path = tmp_path / "throughput.json"
    path.write_text(json.dumps({"jobs": [JOB, {**JOB, "actors": 2, "per_s": 50.0}]}))
    jobs = read_jobs(str(path))
    costs = costs_of(jobs[0], DRIVER, 300.0, 700_000, 1e-5, ["images/s of a GPU"])
    assert costs.wave_s == pytest.approx(1000 / 20 - 1000 / 30 - 0.5 - 1000 * DRIVER.merge_s)
    found = forecasts(costs, Cluster(1), [1, 256], [10**7, 10**9], Prices())
    text = scale_text(costs, Cluster(1), found, jobs)
    assert "what breaks" in text
    header, *lines = [line for line in text.splitlines() if "  " in line][: len(found) + 1]
    assert "their cost" in header
    bills = {f"{run.requests_cost:,.0f}" for run in found}
    assert all(any(f" {bill} " in line for line in lines) for bill in bills)
    repeating = costs_of(jobs[0], DRIVER, 300.0, 700_000, 1e-5, [], may_repeat=True)
    assert (costs.name_bytes, repeating.name_bytes) == (0, NAME_BYTES)
    assert "+20%" in text
    assert "Assumed, not measured: images/s of a GPU." in text
    with pytest.raises(ConfigError, match="no file of measured jobs"):
        read_jobs(str(tmp_path / "none.json"))


def test_made_up_pictures_and_rows_are_as_a_run_has_them() -> None:
    pictures = made_up_pictures(130)
    assert pictures.schema == PICTURES
    units = cut_units(pictures.sort_by("category"), 64)
    assert sum(unit.count for unit in units) == 130
    assert made_up_scores(5).num_rows == 5


@pytest.mark.integration
def test_what_the_driver_costs_is_measured_here(local_ray: None) -> None:
    """Of everything something, and of a small plan not more than a plan's usual share."""
    costs = measure_driver(pictures=4000, units=24, unit_size=8)
    assert all(value > 0 for value in asdict(costs).values())
    assert costs.row_bytes > 24 * 24, "a row has its map, which hardly compresses"
    assert costs.unit_bytes < 5000
    assert costs.plan_s < costs.unit_driver_s
