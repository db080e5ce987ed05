"""What a fetch task holds of a unit is bounded, whether or not its pictures have known lengths."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfbmr.score import fetch
from nfbmr.score.fetch import Fetcher
from nfbmr.score.plan import PlannedPicture
from tests.score.planning import listed


def test_lengths_that_are_estimates_do_not_bound_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a Parquet file: the mean of a row group says little of the largest."""
    path = tmp_path / "p.parquet"
    pictures = [bytes([n]) * 1000 for n in range(40)]
    names = [f"bottle/{n}.png" for n in range(40)]
    pq.write_table(pa.table({"image": pictures, "name": names}), path)
    planned = [PlannedPicture(**row) for row in listed([str(path)]).to_pylist()]
    assert all(picture.length for picture in planned)
    monkeypatch.setattr(fetch, "_MOST_BYTES", 10_000)
    fetched = Fetcher({}, str(tmp_path), "e" * 32, 0.0, last_try=True)._fetch_all(planned)
    kinds = [picture.error_kind for picture, _ in fetched]
    assert kinds == [None] * 16 + ["too_large"] * 24
