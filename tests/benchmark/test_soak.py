"""Memory of a long run is recorded, compared and judged."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import jobs.benchmark
from nfbmr.benchmark.memory import MemorySample
from nfbmr.benchmark.soak import SERIES, is_flat, tenth, write_pictures
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.errors import DataError

MIB = 2**20


def samples(growth_mib: float) -> list[MemorySample]:
    """A run whose driver grows by so much from beginning to end, from a GiB."""
    return [
        MemorySample(
            seconds=float(n),
            pictures=n,
            driver_bytes=int((1024 + growth_mib * n / 1000) * MIB),
            workers_bytes=500 * MIB,
            workers=2,
            object_store_bytes=10 * MIB,
        )
        for n in range(1001)
    ]


@pytest.mark.parametrize(
    ("growth_mib", "flat"), [(0, True), (80, True), (200, False), (-500, False)]
)
def test_what_grows_is_not_flat(growth_mib: float, flat: bool) -> None:
    taken = samples(growth_mib)
    second, last = tenth(taken, 1), tenth(taken, 9)
    assert second["driver_bytes"] == pytest.approx((1024 + growth_mib * 0.15) * MIB, rel=0.01)
    assert last["driver_bytes"] == pytest.approx((1024 + growth_mib * 0.95) * MIB, rel=0.01)
    assert is_flat(second, last) is flat
    fewer_in_flight = {**second, "object_store_bytes": second["object_store_bytes"] / 2}
    assert is_flat(second, fewer_in_flight)


def test_too_short_a_run_says_so() -> None:
    with pytest.raises(DataError, match="more --pictures"):
        tenth(samples(0)[:1] + samples(0)[-1:], 1)


def test_drawn_pictures_are_all_there_and_all_different(tmp_path: Path) -> None:
    tars = write_pictures(tmp_path, 3000, ["a", "b"], 64)
    entries = [entry for tar in tars for entry in list_archive(tar).entries]
    assert len({entry.member for entry in entries}) == 3000
    assert len({read_entry(entry) for entry in entries}) == 3000


@pytest.mark.integration
@pytest.mark.slow  # runs by hand until it has passed on a quiet machine
def test_a_short_soak_records_memory_and_every_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job itself on a local Ray, as a user runs it, over a few thousand pictures."""
    work = ["--work-dir", str(tmp_path), "--interval", "0.2"]
    code = jobs.benchmark.main(["soak", "--pictures", "4000", *work])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == (0 if result["is_flat"] else 1)
    assert (result["pictures"], result["failed"]) == (4000, 0)
    table = pq.read_table(result["samples"])
    assert table.num_rows >= 10
    done = table.column("pictures").to_pylist()
    assert done == sorted(done)
    assert done[-1] == 4000
    for name in SERIES:
        assert max(table.column(name).to_pylist()) == result["largest"][name]
    assert min(table.column("driver_bytes").to_pylist()) > 50 * MIB
    assert result["largest"]["workers_bytes"] > 50 * MIB
    assert result["largest"]["object_store_bytes"] > 0
