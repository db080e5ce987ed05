"""A worker node dies in the middle of a run."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from nfbmr.score.units import finished_units
from tests.faults.conftest import Plant, Rows, assert_same, node_environment, rows_of
from tests.faults.driver import Driver
from tests.faults.test_kills import dawdling, wait_for_units
from tests.services.faulty_proxy import FaultyProxy

# Minutes each: make test-slow.
pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_node_that_dies_costs_no_row(
    cluster: Cluster,
    driver: Driver,
    plant: Plant,
    stored: str,
    environment: Mapping[str, str],
    proxy: FaultyProxy,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    """Two actors that take a whole node each: one of them is on the node that dies."""
    output = str(tmp_path / "scores")
    with node_environment(environment):
        node = cluster.add_node(num_cpus=2, object_store_memory=150 * 2**20)
    settings = ("run.actors_max=2", "run.actors_min=1", "run.cpus_per_actor=2")
    with proxy.faults(dawdling):
        driver.start(plant.argv(f"{stored}/pictures", output, *settings))
        wait_for_units(driver, output, 4)
        cluster.remove_node(node, allow_graceful=False)
        killed = time.monotonic()
        before = len(finished_units(output))
        assert before < 16, "the run was over before the node went"
        outcome = driver.outcome(400)
    print(f"{before} units were finished; the rest took {time.monotonic() - killed:.0f} s")
    assert outcome.code == 0, outcome.said
    assert_same(rows_of(output), undisturbed)
