"""What a worker may take: no more than its container leaves, and all that it leaves."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.train.device_memory import (
    free_memory_bytes,
    left_in_container_bytes,
    memory_share,
)

GIB = 2**30
UNLIMITED_V1 = 9223372036854771712
CPUS = st.floats(0.25, 128)


def container(root: Path, version: int, limit: str, used: int, **stat: int) -> Path:
    """A container's files as one version of control groups has them."""
    folder = root if version == 2 else root / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    prefix = "" if version == 2 else "total_"
    lines = [f"{prefix}{name} {value}" for name, value in stat.items()]
    if version == 1:  # Of the group alone, without those below it.
        lines += [f"{name} 0" for name in stat]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_the_page_cache_of_a_container_is_free_and_its_shared_memory_is_not(
    tmp_path: Path, version: int
) -> None:
    root = container(
        tmp_path,
        version,
        str(16 * GIB),
        16 * GIB - 4096,
        anon=3 * GIB,
        file=13 * GIB - 4096,
        shmem=GIB,
        inactive_file=2 * GIB,
        active_file=10 * GIB,
    )
    assert left_in_container_bytes(root) == 12 * GIB + 4096


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_is_full_of_its_own_has_next_to_nothing_left(
    tmp_path: Path, version: int
) -> None:
    root = container(tmp_path, version, str(GIB), GIB, inactive_file=0, active_file=0)
    assert left_in_container_bytes(root) == 1


def test_without_a_limit_the_machine_decides(tmp_path: Path) -> None:
    assert left_in_container_bytes(tmp_path) is None
    assert left_in_container_bytes(container(tmp_path, 2, "max", GIB)) is None


def test_version_1_says_a_number_where_there_is_no_limit(tmp_path: Path) -> None:
    left = left_in_container_bytes(container(tmp_path, 1, str(UNLIMITED_V1), GIB))
    assert left is not None
    assert left > 2**60


def test_free_memory_of_this_machine_is_a_plausible_number() -> None:
    assert 2**20 < free_memory_bytes(torch.device("cpu")) < 2**50


def test_cores_are_those_that_the_node_offers_whatever_the_host_has() -> None:
    assert memory_share({"CPU": 1.0}, {"CPU": 4.0}) == 0.25
    assert memory_share({"CPU": 4.0}, {"CPU": 4.0}) == 1.0
    assert memory_share({"GPU": 0.25}, {"CPU": 4.0, "GPU": 1.0}) == 0.25
    assert memory_share({"GPU": 2.0}, {"CPU": 4.0, "GPU": 2.0}) == 1.0


@given(CPUS, st.none() | CPUS)
def test_a_share_is_more_than_nothing_and_at_most_all(own: float, offered: float | None) -> None:
    share = memory_share({"CPU": own}, {} if offered is None else {"CPU": offered})
    assert 0 < share <= 1
