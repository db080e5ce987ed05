"""One category from cached features to a saved detector, with few pictures and with many."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfbmr.config import load_config
from nfbmr.errors import FeaturesError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.detector import Detector
from nfbmr.model.scoring import image_scores
from nfbmr.train.category_fit import CategoryTask, FitReport, fit_category
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import EpochLosses, fit_heads
from nfbmr.train.fit_checkpoint import FitCheckpoint
from nfbmr.train.fit_state import StageState
from nfbmr.train.held_out_maps import anomaly_maps
from tests.train.test_fit import SHAPE, features

CONFIG = load_config(
    None,
    [
        "flow.hidden_channels=16",
        "mapper.latent_channels=8",
        "mapper.block_channels=4",
        "fit.flow_epochs=2",
        "fit.mapper_epochs=2",
        "fit.min_steps=1",
        "fit.precision=float32",
        "calibration.false_alarm_rate=0.1",
    ],
)


def task(root: Path, fitted: int, held_out: int, folds: int) -> CategoryTask:
    """Where nothing is held out, every picture calibrates."""
    cache = FeatureCache(str(root), "backbone")
    entries = [f"{i:04d}" for i in range(fitted + held_out)]
    for entry, y_CHW in zip(entries, features(len(entries)), strict=True):
        cache.write(entry, y_CHW)
        cache.write(f"{entry}-cut1-1", y_CHW * 2)
    calibrating = entries[fitted:] or entries
    return CategoryTask(
        category="bottle",
        config=CONFIG,
        cache_root=str(root),
        backbone_key="backbone",
        backbone=create_backbone(BackboneSettings(image_size_px=64)).identity(),
        fit_entries=entries[:fitted],
        held_out_entries=calibrating,
        synthetic_entries=[f"{entry}-cut1-1" for entry in calibrating],
        folds=folds,
    )


@pytest.mark.parametrize(("held_out", "folds"), [(12, 0), (0, 3)])
def test_calibration_size_folds_and_evidence_are_recorded(
    tmp_path: Path, held_out: int, folds: int
) -> None:
    report = fit_category(task(tmp_path / "cache", 24, held_out, folds), tmp_path / "out")
    detector = Detector.load(tmp_path / "out")
    assert detector.calibration.n == (held_out or 24)
    assert detector.lineage["calibration_folds"] == folds
    assert detector.lineage["synthetic_aurocs"] == report.synthetic_aurocs
    assert report.aggregate in report.synthetic_aurocs
    assert report.threshold == detector.threshold
    # The folds' own fits do not disturb the loss curve of the detector's fit.
    assert [(e.stage, e.epoch) for e in report.losses] == [
        ("flow", 1), ("flow", 2), ("mapper", 1), ("mapper", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("held_out", "folds"), [(12, 0), (0, 3)])
def test_pictures_unlike_the_others_are_listed_and_left_out_where_that_is_wanted(
    tmp_path: Path, held_out: int, folds: int
) -> None:
    fit = replace(CONFIG.fit, flow_epochs=15, trim_share=0.2, trim_deviation=3.5)
    night = replace(CONFIG.night, worst_listed=3)
    given = task(tmp_path / "cache", 24, held_out, folds)
    strange = [given.fit_entries[i] for i in (3, 17)]
    cache = FeatureCache(given.cache_root, given.backbone_key)
    for entry in strange:
        cache.write(entry, torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)) * 6)
    uris = {entry: f"/data/{entry}.png" for entry in given.fit_entries}
    given = replace(given, config=replace(CONFIG, fit=fit, night=night), uris=uris)
    seen: list[EpochLosses] = []
    report = fit_category(given, tmp_path / "out", report=seen.append)
    assert report is not None
    assert report.trimmed == 2
    assert len(report.worst) == 3
    assert {p.uri for p in report.worst[:2]} == {uris[entry] for entry in strange}
    assert {p.role for p in report.worst[:2]} == {"trimmed"}
    assert FitReport.load(tmp_path / "out").worst == report.worst
    assert [e.stage for e in seen] == ["pilot"] * 15 + ["flow"] * 15 + ["mapper"] * 2
    stay = [entry for entry in given.fit_entries if entry not in strange]
    without = fit_heads(cache.load(stay), CONFIG.heads, fit, category="bottle")
    detector = Detector.load(tmp_path / "out")
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, detector.heads.state_dict()[name]), name
    assert detector.calibration.n == (held_out or 24), "a calibration is not trimmed"


def test_a_cross_fitted_detector_is_fitted_on_all_but_calibrated_out_of_fold(
    tmp_path: Path,
) -> None:
    few = task(tmp_path / "cache", 24, 0, 3)
    fit_category(few, tmp_path / "out")
    detector = Detector.load(tmp_path / "out")
    y_NCHW = FeatureCache(few.cache_root, few.backbone_key).load(list(few.fit_entries))
    on_all = fit_heads(y_NCHW, CONFIG.heads, CONFIG.fit, category="bottle")
    for name, tensor in on_all.state_dict().items():
        assert torch.equal(tensor, detector.heads.state_dict()[name]), name
    expected: list[float] = []
    for fold in range(3):
        rest = torch.arange(24) % 3 != fold
        heads = fit_heads(y_NCHW[rest], CONFIG.heads, CONFIG.fit, category="bottle")
        expected += image_scores(anomaly_maps(heads, y_NCHW[~rest]), detector.aggregate).tolist()
    assert sorted(expected) == pytest.approx(list(detector.calibration.scores), rel=1e-5)


def test_a_missing_feature_names_the_category(tmp_path: Path) -> None:
    broken = task(tmp_path / "cache", 24, 12, 0)
    for path in (tmp_path / "cache").rglob("0003.features"):
        path.unlink()
    with pytest.raises(FeaturesError, match=r"Category 'bottle'.*0003"):
        fit_category(broken, tmp_path / "out")


class CutError(Exception):
    """Stands for whatever ends a process."""


def test_a_fold_that_was_cut_short_goes_on_from_its_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three fits of four epochs follow the one on all pictures; the second of them is cut."""
    folded = task(tmp_path / "cache", 24, 0, 3)
    expected = fit_category(folded, tmp_path / "undisturbed")
    assert expected is not None
    night = replace(CONFIG.night, checkpoint_interval_s=0)
    folded = replace(
        folded, config=replace(CONFIG, night=night), state_root=str(tmp_path / "states")
    )
    kept: list[str] = []
    keep = FitCheckpoint.keep

    def counted(self: FitCheckpoint, state: StageState) -> None:
        keep(self, state)
        kept.append(str(self.uri).rpartition("/")[2])
        if len(kept) == 10:
            raise CutError

    monkeypatch.setattr(FitCheckpoint, "keep", counted)
    with pytest.raises(CutError):
        fit_category(folded, tmp_path / "cut")
    names = [f"{name}.safetensors" for name in ("fit", "fold-0", "fold-1", "fold-2")]
    assert [kept.count(name) for name in names] == [4, 4, 2, 0]
    again = fit_category(folded, tmp_path / "again")
    assert [kept.count(name) for name in names] == [4, 4, 4, 4]
    assert again is not None
    assert again.threshold == expected.threshold
    assert again.synthetic_aurocs == expected.synthetic_aurocs
