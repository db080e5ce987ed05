"""A campaign on a real local Ray: parallel fits, a registry, a cache that is used again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nfbmr.data.content import content_hash
from nfbmr.data.decoding import decode_rgb
from nfbmr.data.layouts import discover
from nfbmr.progress import Progress
from nfbmr.registry import CHAMPION, PREVIOUS
from nfbmr.train.campaign import (
    CampaignPaths,
    run_campaign,
)
from nfbmr.train.code_version import code_version
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.sample_pictures import HEATMAPS_FILE, LOSSES_FILE
from nfbmr.train.split import split_normals
from tests.conftest import Trained


def test_every_category_is_registered_as_champion_with_its_evidence(trained: Trained) -> None:
    assert [r.outcome for r in trained.results] == ["registered", "registered"]
    for result in trained.results:
        version = trained.registry.resolve(result.category)
        assert version.version == result.version == "1"
        assert CHAMPION in version.aliases
        assert result.pictures + result.held_out == trained.settings.train
        assert version.tags["nfbmr.decision"].startswith("there was no champion: AUROC on labelled")
        assert version.tags["nfbmr.gate"] == "passed"
        assert float(version.tags["nfbmr.synthetic_auroc"]) > 0.5
        assert version.tags["nfbmr.pictures_fitted"] == str(result.pictures)
        detector = trained.registry.load(result.category)
        assert version.tags["nfbmr.pictures_held_out"] == str(result.held_out)
        assert version.tags["nfbmr.calibration_size"] == str(detector.calibration.n)
        assert version.tags["nfbmr.weights_hash"] == detector.backbone["weights_hash"]
        assert version.tags["nfbmr.code_version"] == code_version()
        for name in ("data_fingerprint", "settings_fingerprint"):
            assert len(version.tags[f"nfbmr.{name}"]) >= 16
        run = trained.registry.client.get_run(version.run_id).data
        assert run.params["fit.seed"] == str(trained.config.fit.seed)
        assert run.metrics["flow_loss"] == pytest.approx(result.flow_loss)
        packaging = trained.registry.read_file(version, "MLmodel")
        assert packaging is not None
        assert b"signature:" in packaging
        for name in (LOSSES_FILE, HEATMAPS_FILE):
            data = trained.registry.read_file(version, name)
            assert data is not None
            pixels_HWC = decode_rgb(data)
            assert min(pixels_HWC.shape[:2]) > 100
            assert len(np.unique(pixels_HWC.reshape(-1, 3), axis=0)) > 10, "an empty picture"
        losses = trained.registry.losses(version)
        assert set(losses) == {"flow_loss", "source_loss", "target_loss"}
        assert losses["flow_loss"][-1] < losses["flow_loss"][0]
        assert losses["source_loss"][-1] < losses["source_loss"][0]


def test_the_loaded_detector_is_calibrated_on_the_held_out_normals(trained: Trained) -> None:
    for result in trained.results:
        detector = trained.registry.load(result.category)
        assert detector.calibration.n == result.held_out
        assert detector.lineage["settings"] == trained.config.as_dict()
        assert detector.backbone["name"] == "nfbmr_small"


@pytest.mark.integration
def test_a_second_night_uses_the_cache_and_isolates_failures(
    trained: Trained, tmp_path: Path
) -> None:
    """One category has changed for the worse: too few pictures; one has an unreadable picture."""
    data = tmp_path / "data"
    shutil.copytree(trained.factory.root, data)
    first, second = (result.category for result in trained.results)
    for path in sorted((data / first / "train" / "good").iterdir())[5:]:
        path.unlink()
    broken = data / second / "train" / "good" / "999.png"
    broken.write_bytes(b"no picture")
    new = add_pictures(data / second / "train" / "good", count=3)
    damaged = damage_an_entry(trained, data, second)
    said: list[str] = []

    class Recorder(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    results = run_campaign(
        str(data),
        "mvtec",
        None,
        trained.config,
        CampaignPaths.under(str(trained.work_dir)),
        trained.registry,
        Recorder(quiet=True),
    )
    outcomes = {result.category: result for result in results}
    assert outcomes[first].outcome == "failed"
    assert "5 normal pictures" in outcomes[first].decision
    assert outcomes[second].outcome == "registered"
    assert outcomes[second].version == "2"
    assert outcomes[second].unreadable == 1
    samples = discover(str(data), "mvtec", [second])
    split = split_normals(samples, second, trained.config.calibration, trained.config.fit.seed)
    cut = sum(sample.uri in new for sample in split.held_out)
    assert any(f"({len(new) + cut} computed" in line for line in said), said
    assert any(f"{second}: 1 features in the cache were damaged" in line for line in said), said
    assert FeatureCache(str(damaged.parents[1]), "").read(damaged.stem) is not None
    assert len(outcomes[second].worst) == trained.config.night.worst_listed
    assert not list((trained.work_dir / "checkpoints" / "nights").iterdir())
    assert any(str(broken) in line for line in said), said
    assert trained.registry.resolve(second).version == "2", outcomes[second].decision
    assert trained.registry.resolve(second, PREVIOUS).version == "1"
    trained.registry.promote(second, "1", {})


def add_pictures(folder: Path, count: int) -> set[str]:
    """Upside-down copies: new pictures of the same kind."""
    added = set()
    for path in sorted(folder.glob("*.png"))[:count]:
        target = folder / f"new-{path.name}"
        ImageOps.flip(Image.open(path)).save(target)
        added.add(str(target))
    return added


def damage_an_entry(trained: Trained, data: Path, category: str) -> Path:
    """Flip a byte in the features of a picture that is fitted on."""
    samples = discover(str(data), "mvtec", [category])
    config = trained.config
    split = split_normals(samples, category, config.calibration, config.fit.seed)
    old = next(s.uri for s in split.fit if Path(s.uri).name[0].isdigit())
    name = content_hash(Path(old).read_bytes())
    path = next((trained.work_dir / "features").rglob(f"{name}.features"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    return path
