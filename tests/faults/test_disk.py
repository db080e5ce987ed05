"""A disk that is full when a unit, or the finished data set, is to be written."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from nfbmr.config import load_config
from nfbmr.data.sample import Sample
from nfbmr.errors import StoreError
from nfbmr.progress import Progress
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.units import finished_units
from nfbmr.settings import OutputSettings, RunSettings
from nfbmr.store_faults import store_sentences
from nfbmr.train.campaign_features import CampaignFeatures
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.split import Split
from tests.faults.conftest import Plant, Rows, assert_same, rows_of
from tests.faults.driver import Driver
from tests.score.committed_run import committed, finished


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


# Minutes each: make test-slow.
@pytest.mark.integration
@pytest.mark.slow
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


@pytest.mark.parametrize("files", [1, 4])
def test_a_disk_that_is_full_while_units_are_merged_loses_none(
    files: int, small_disk: Path
) -> None:
    """The merged files take the room of the units a second time."""
    output, pictures = str(small_disk / "scores"), 600
    plan, schema = committed(output, [pictures], unit_size=20)
    settings = RunSettings(output=OutputSettings(rows_per_file=pictures // files))
    _fill(small_disk / "ballast", but_kib=12)
    said = r"No space left on device.* run the same command again"
    with pytest.raises(StoreError, match=said), store_sentences("Scoring"):
        finished(output, plan, schema, settings)
    assert read_marker(output) is None
    assert not (small_disk / "scores" / "data").exists()
    assert len(finished_units(output)) == len(plan.units)
    (small_disk / "ballast").unlink()
    assert finished(output, plan, schema, settings).pictures == pictures
    names = read_scores(output).column("image_uri").to_pylist()
    assert len(names) == len(set(names)) == pictures


# A store that is full is tried again for a minute.
@pytest.mark.integration
@pytest.mark.slow
def test_features_of_another_backbone_make_way_where_the_disk_is_full(
    small_disk: Path, tmp_path: Path, local_ray: None
) -> None:
    root = str(small_disk / "features")
    for entry in ("00", "11", "22"):
        FeatureCache(root, "old").write(entry, torch.zeros(64, 32, 32))
    _fill(small_disk / "ballast", but_kib=0)
    samples = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(path)
        samples.append(Sample(str(path), "nut", "train"))
    config = load_config(None, ["backbone.image_size_px=64", "run.store_patience_s=1"], "small")
    features = CampaignFeatures(config, root, Progress(quiet=True))
    index, rows = features.compute({"nut": Split(fit=samples, held_out=[])})
    assert rows == []
    assert index is not None
    assert index.computed == 5
    assert FeatureCache(root, "old").names().tolist() == [b"11", b"22"]


def _fill(ballast: Path, but_kib: int) -> None:
    """Write a file that leaves no more than so much room beside it."""
    room = os.statvfs(ballast.parent)
    ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - but_kib * 2**10)))
