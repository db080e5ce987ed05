"""A disk that is full when a unit, or the finished data set, is to be written."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfbmr.errors import StoreError
from nfbmr.score.dataset import read_marker
from nfbmr.score.units import finished_units
from tests.faults.conftest import Plant, Rows, assert_same, rows_of
from tests.faults.driver import Driver

# Minutes each: make test-slow.
pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room_kib", [40, 150], ids=["in the middle", "nearly at the end"])
def test_a_full_disk_ends_the_run_and_loses_nothing(
    room_kib: int,
    driver: Driver,
    plant: Plant,
    small_disk: Path,
    undisturbed: Rows,
) -> None:
    output = str(small_disk / "scores")
    argv = plant.argv(plant.tar, output, "run.store_patience_s=1")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**20 - room_kib * 2**10))
    outcome = driver.run(argv)
    assert outcome.code == StoreError.exit_code, outcome.said
    assert "No space left on device" in outcome.said
    assert "make some, then run the same command again" in outcome.said
    assert "Traceback" not in outcome.said
    assert read_marker(output) is None
    done = len(finished_units(output))
    assert done > 0
    ballast.unlink()
    again = driver.run(argv)
    assert again.code == 0, again.said
    assert f"{done} of 16 units were finished before" in again.said
    assert_same(rows_of(output), undisturbed)
