"""A campaign does not begin where a node does not see what it reads, and leaves nothing there."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from nfbmr.config import load_config
from nfbmr.data.sample import Sample
from nfbmr.errors import OutputError
from nfbmr.registry import Registry
from nfbmr.shared_places import local_places
from nfbmr.train import campaign_places
from nfbmr.train.campaign import run_campaign
from nfbmr.train.campaign_places import check_places
from nfbmr.train.campaign_state import CampaignPaths
from tests.train.campaigns import QUIET


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a second node is asked for, of what this one sees; it has none of it."""
    places: list[str] = []

    def refuse(uris: Sequence[str]) -> None:
        places.extend(local_places(uris))
        raise OutputError("10.0.0.2 does not see it.")

    monkeypatch.setattr(campaign_places, "has_several_nodes", lambda: True)
    monkeypatch.setattr(campaign_places, "check_seen_by_all_nodes", refuse)
    return places


def picture(root: Path, category: str, name: str) -> Sample:
    path = root / category / "normal" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return Sample(str(path), category, "train")


def test_nodes_are_asked_for_pictures_weights_and_a_new_file_in_each_folder(
    asked: list[str], tmp_path: Path
) -> None:
    samples = [picture(tmp_path, name, f"{i}.png") for name in ("nut", "cap") for i in (1, 2)]
    weights = tmp_path / "w.safetensors"
    weights.touch()
    config = load_config(None, [f"backbone.weights={weights}"], "small")
    paths = CampaignPaths.under(str(tmp_path / "work"))
    with pytest.raises(OutputError, match=r"10\.0\.0\.2"):
        check_places(samples, config, paths)
    new = [Path(place) for place in asked if ".partial" in place]
    assert [str(path.parent) for path in new] == [paths.features, paths.checkpoints]
    assert not any(path.exists() for path in new)
    others = set(asked) - {str(path) for path in new}
    assert others - {str(weights)} <= {sample.uri for sample in samples}
    assert len(others) == 3, "one picture of each category, and the weights"


def test_of_object_stores_nothing_is_asked(asked: list[str]) -> None:
    samples = [Sample("s3://bucket/nut/normal/1.png", "nut", "train")]
    with pytest.raises(OutputError):
        check_places(samples, load_config(None, (), "small"), CampaignPaths.under("s3://bucket/w"))
    assert asked == []


def test_the_campaign_does_not_begin(asked: list[str], tmp_path: Path) -> None:
    picture(tmp_path / "data", "nut", "1.png")
    work = tmp_path / "work"
    with pytest.raises(OutputError, match="does not see it"):
        run_campaign(
            str(tmp_path / "data"),
            "folder",
            None,
            load_config(None, (), "small"),
            CampaignPaths.under(str(work)),
            Registry("http://127.0.0.1:9"),
            QUIET,
        )
    assert asked
    assert not [path for path in work.rglob("*") if path.is_file()]
