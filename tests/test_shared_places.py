"""A run does not begin where a node does not see what it is to read."""

from pathlib import Path

import pytest

from nfbmr.errors import OutputError
from nfbmr.shared_places import (
    _unseen,
    check_seen_by_all_nodes,
    has_several_nodes,
    local_places,
    refuse_unseen,
)


def test_the_node_and_the_path_are_named(tmp_path: Path) -> None:
    refuse_unseen({"10.0.0.1": [], "10.0.0.2": []})
    with pytest.raises(OutputError, match=r"/a\.tar is here, but not on .* 10\.0\.0\.2: give"):
        refuse_unseen({"10.0.0.1": [], "10.0.0.2": ["/a.tar"]})
    assert _unseen([str(tmp_path), str(tmp_path / "none")]) == [str(tmp_path / "none")]


def test_one_node_sees_what_it_sees(local_ray: None, tmp_path: Path) -> None:
    assert not has_several_nodes()
    check_seen_by_all_nodes([str(tmp_path), str(tmp_path / "none"), "s3://bucket/prefix"])


def test_a_pattern_stands_for_the_folder_above_it(tmp_path: Path) -> None:
    (tmp_path / "2026-11" / "line7").mkdir(parents=True)
    (tmp_path / "a[1].tar").touch()
    patterns = [f"{tmp_path}/2026-11/line?/*.tar", f"file://{tmp_path}/2026-*/line7"]
    assert local_places(patterns) == [f"{tmp_path}/2026-11", str(tmp_path)]
    assert local_places([f"{tmp_path}/a[1].tar"]) == [f"{tmp_path}/a[1].tar"]
    assert local_places([f"{tmp_path}/none/*.tar", "s3://bucket/2026-*/x"]) == []
