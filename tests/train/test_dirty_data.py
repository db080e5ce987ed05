"""Defective pictures among the real photographs that are trained on: their cost, who finds them."""

import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from nfbmr.config import Config, load_config
from nfbmr.data.layouts import discover
from nfbmr.model.scoring import image_scores
from nfbmr.progress import Progress, table
from nfbmr.registry import Registry, default_uri
from nfbmr.train.campaign import CampaignPaths, CategoryResult, run_campaign
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.feature_index import Picture
from nfbmr.train.features import compute_features
from nfbmr.train.held_out_maps import anomaly_maps
from tests.conftest import SHARED

pytestmark = pytest.mark.slow

CONTAMINATION = 0.05
CATEGORY = "tile"


def lay_out(folder: Path) -> tuple[int, set[str]]:
    """``clean`` and ``dirty`` in the layout of MVTec AD, with the same test pictures.

    Returns:
        How many pictures ``clean`` is trained on, and the names of the defective ones in ``dirty``.
    """
    root = SHARED / "data" / "mtd"
    if not root.exists():
        pytest.skip("the magnetic tile photographs do not lie beside the project")
    samples = discover(str(root), "mtd")
    train = [s for s in samples if s.split == "train"]
    defective = [s for s in samples if s.is_defective]
    planted = random.Random(0).sample(defective, round(CONTAMINATION * len(train)))
    for kind in ("clean", "dirty"):
        for sample in samples:
            if sample in planted and kind == "clean":
                continue
            is_fitted = sample.split == "train" or sample in planted
            place = "train/good" if is_fitted else f"test/{sample.defect_type}"
            target = folder / kind / CATEGORY / place / Path(sample.uri).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.uri, target)
    return len(train), {Path(s.uri).name for s in planted}


def settings(weights: str) -> Config:
    return load_config(
        None,
        [
            "backbone.name=mobilenetv2_100",
            f"backbone.weights={weights}",
            "backbone.image_size_px=256",
            "fit.flow_epochs=15",
            "fit.mapper_epochs=15",
            "night.worst_listed=60",
        ],
    )


@dataclass
class Measured:
    """One way to fit, on the same test pictures."""

    auroc: float
    result: CategoryResult


def measured(data: Path, config: Config, folder: Path, name: str) -> Measured:
    registry = Registry(default_uri(str(folder / name)))
    paths = CampaignPaths(str(folder / "features"), str(folder / name / "checkpoints"))
    (result,) = run_campaign(str(data), "mvtec", None, config, paths, registry, Progress())
    assert result.version is not None, result.decision
    detector = registry.load(CATEGORY, result.version)
    test = [s for s in discover(str(data), "mvtec") if s.split == "test"]
    pictures = [Picture(sample.uri) for sample in test]
    index = compute_features(pictures, config.backbone, paths.features, config.run)
    cache = FeatureCache(paths.features, index.backbone_key)
    map_NHW = anomaly_maps(detector.heads, cache.load([index.entries[p] for p in pictures]))
    score_N = image_scores(map_NHW, detector.aggregate)
    truth_N = [sample.is_defective for sample in test]
    return Measured(float(roc_auc_score(truth_N, score_N.numpy())), result)


def test_five_percent_of_defective_training_pictures(
    real_weights: str, local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reported: AUROC clean, with the defective ones, and with two ways to leave some out."""
    trained_on, planted = lay_out(tmp_path)
    config = settings(real_weights)
    dirty = tmp_path / "dirty"
    share = replace(config, fit=replace(config.fit, trim_share=0.1))
    robust = replace(config, fit=replace(config.fit, trim_share=0.2, trim_deviation=3.0))
    ways = {
        "clean": measured(tmp_path / "clean", config, tmp_path, "clean"),
        "5 % defective": measured(dirty, config, tmp_path, "kept"),
        "  the worst 10 % left out": measured(dirty, share, tmp_path, "share"),
        "  3 deviations left out": measured(dirty, robust, tmp_path, "robust"),
    }

    def found(way: Measured) -> int:
        return sum(Path(w["uri"]).name in planted for w in way.result.worst[: len(planted)])

    header = ("trained on", "pictures", "AUROC", "left out", "defective among the worst")
    rows = [(n, w.result.pictures, w.auroc, w.result.trimmed, found(w)) for n, w in ways.items()]
    with capsys.disabled():
        said = f"{len(planted)} defective pictures planted among {trained_on}"
        print(f"\n{said}\n{table(rows, header)}")
    clean, kept, by_share, _ = ways.values()
    assert (clean.result.trimmed, kept.result.trimmed) == (0, 0)
    assert by_share.result.trimmed == int(0.1 * by_share.result.pictures)
    # The list of those that fit worst is far from a random one, which would hold 5 %.
    assert found(kept) > 5 * CONTAMINATION * len(planted)
    assert clean.auroc > 0.9
    assert kept.auroc > clean.auroc - 0.1
    assert by_share.auroc > kept.auroc - 0.01
