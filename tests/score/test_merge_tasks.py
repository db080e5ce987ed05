"""Merging in tasks gives what one process gives, and its failures are sentences, too."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nfbmr.errors import OutputError
from nfbmr.score.finish import lineage
from nfbmr.score.merge import Merge, merge_units
from nfbmr.score.merge_tasks import merge_parts
from nfbmr.score.parts import cut_parts
from nfbmr.settings import OutputSettings
from tests.score.committed_run import committed


def test_every_file_is_the_one_that_a_single_process_writes(
    tmp_path: Path, local_ray: None
) -> None:
    output = str(tmp_path / "scores")
    plan, schema = committed(output, [20, 11], ["bottle", "cable"])
    parts = cut_parts(plan, schema, OutputSettings(rows_per_file=7))
    assert len(parts) > 3
    here, there = tmp_path / "here", tmp_path / "there"
    merge_units(Merge(plan.run_id, output, str(here), schema, lineage(plan)), parts)
    merge_parts(Merge(plan.run_id, output, str(there), schema, lineage(plan)), parts, 600)
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in there.iterdir()) == [p.name for p in parts]
    for name in names:
        expected, found = pq.read_table(here / name), pq.read_table(there / name)
        assert found.equals(expected, check_metadata=True)


def test_a_unit_that_is_gone_is_a_sentence_and_not_a_traceback(
    tmp_path: Path, local_ray: None
) -> None:
    output = str(tmp_path / "scores")
    plan, schema = committed(output, [20])
    gone = next(iter((tmp_path / "scores" / "_units").iterdir()))
    gone.unlink()
    parts = cut_parts(plan, schema, OutputSettings(rows_per_file=6))
    merge = Merge(plan.run_id, output, str(tmp_path / "data"), schema, lineage(plan))
    with pytest.raises(OutputError) as raised:
        merge_parts(merge, parts, 600)
    assert str(raised.value).startswith("The finished unit ")
    assert "Traceback" not in str(raised.value)
