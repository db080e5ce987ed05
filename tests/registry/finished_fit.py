"""A finished fit as a worker leaves it, made without fitting."""

from pathlib import Path

import numpy as np
import torch

from nfbmr.config import load_config
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.train.category_task import FitReport
from nfbmr.train.evidence import Evidence
from nfbmr.train.finished import FinishedFit
from nfbmr.train.fit import EpochLosses
from nfbmr.train.sample_pictures import draw_losses

NORMALS = 40


def make_detector(category: str = "bottle", **lineage: object) -> Detector:
    """A detector of the embedded backbone whose heads have learned nothing."""
    torch.manual_seed(0)
    backbone = create_backbone(BackboneSettings(image_size_px=64))
    settings = HeadsSettings(
        FlowSettings(hidden_channels=16), MapperSettings(latent_channels=8, block_channels=4)
    )
    return Detector(
        category=category,
        backbone=backbone.identity(),
        weights="embedded",
        heads=Heads(backbone.shape, settings).eval(),
        aggregate="mean",
        calibration=Calibration.from_scores(np.linspace(0.1, 1.0, NORMALS)),
        false_alarm_rate=0.05,
        lineage=dict(lineage),
    )


def finished_fit(
    folder: Path,
    category: str = "bottle",
    *,
    night: int = 1,
    separation: float = 3.0,
    pictures: int | None = None,
) -> FinishedFit:
    """Write a finished fit into a folder.

    Args:
        folder: made where it is missing.
        category: the product type.
        night: of November; later nights are later fits.
        separation: how far synthetic defects score above normals.
        pictures: stands for those of one night; by default every night has others.
    """
    detector = make_detector(
        category,
        fitted_at=f"2026-11-{night:02d}T02:00:00Z",
        data_fingerprint=f"{night if pictures is None else pictures:064x}",
        settings_fingerprint="5" * 32,
        pictures_fitted=160,
        pictures_held_out=NORMALS,
        settings=load_config(None, ["backbone.image_size_px=64"], "small").as_dict(),
    )
    detector.save(folder)
    rng = np.random.default_rng(0)
    normal = {f"normal{i:02d}": float(rng.normal()) for i in range(NORMALS)}
    cut = {f"cut{i:02d}": float(rng.normal(separation)) for i in range(NORMALS)}
    Evidence(normal, cut).save(folder)
    losses = [EpochLosses("flow", i, 3, {"flow_loss": 1.0 / i}) for i in (1, 2, 3)]
    draw_losses(folder, losses)
    FitReport(
        losses=losses,
        aggregate="mean",
        synthetic_aurocs={"mean": 0.9},
        threshold=detector.threshold,
        p_value_floor=detector.calibration.p_value_floor,
        seconds=1.0,
    ).save(folder)
    return FinishedFit.load(folder)
