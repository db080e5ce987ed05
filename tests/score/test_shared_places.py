"""A run does not begin where a node does not see what it is to read."""

from pathlib import Path

import pytest

from nfbmr.errors import OutputError
from nfbmr.score.shared_places import _unseen, check_seen_by_all_nodes, refuse_unseen


def test_the_node_and_the_path_are_named(tmp_path: Path) -> None:
    refuse_unseen({"10.0.0.1": [], "10.0.0.2": []})
    with pytest.raises(OutputError, match=r"/a\.tar is here, but not on .* 10\.0\.0\.2: give"):
        refuse_unseen({"10.0.0.1": [], "10.0.0.2": ["/a.tar"]})
    assert _unseen([str(tmp_path), str(tmp_path / "none")]) == [str(tmp_path / "none")]


def test_one_node_sees_what_it_sees(local_ray: None, tmp_path: Path) -> None:
    check_seen_by_all_nodes([str(tmp_path), str(tmp_path / "none"), "s3://bucket/prefix"])
