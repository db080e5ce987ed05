"""Cross-fitting: no picture is judged by heads that saw it, and the rate holds with few normals."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from nfbmr.fit_settings import FitSettings
from nfbmr.metrics import rate
from nfbmr.model.calibration import Calibration
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.model.scoring import image_scores
from nfbmr.train.fit import fit_heads
from nfbmr.train.held_out_maps import anomaly_maps, cross_fitted_maps, held_out_maps

SHAPE = (6, 3, 3)
HEADS = HeadsSettings(FlowSettings(2, 16), MapperSettings("bmr", 1, 8, 8))
FIT = FitSettings(flow_epochs=2, mapper_epochs=2, batch_size=8, min_steps=20, precision="float32")
RATE = 0.1


class Pictures:
    """Features by entry, and the fits that were made on them."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        y_NCHW = torch.randn(count, *SHAPE, generator=generator)
        self.entries = [f"{i:04d}" for i in range(count)]
        self.features = dict(zip(self.entries, y_NCHW, strict=True))
        self.features |= {f"{e}-cut1-1": y_CHW + 1 for e, y_CHW in self.features.items()}
        self.synthetic = [f"{e}-cut1-1" for e in self.entries]
        self.fits: list[tuple[set[str], Heads]] = []

    def load(self, entries: Sequence[str]) -> Tensor:
        return torch.stack([self.features[entry] for entry in entries])

    def fit(self, entries: Sequence[str]) -> Heads:
        heads = fit_heads(self.load(entries), HEADS, FIT, category="bottle")
        self.fits.append((set(entries), heads))
        return heads


@pytest.mark.parametrize("folds", [2, 3])
def test_every_picture_is_judged_once_by_heads_that_never_saw_it(folds: int) -> None:
    pictures = Pictures(11)
    maps = cross_fitted_maps(
        pictures.fit, pictures.load, pictures.entries, pictures.synthetic, folds
    )
    assert len(pictures.fits) == folds
    expected, expected_synthetic = [], []
    for seen, heads in pictures.fits:
        unseen = [entry for entry in pictures.entries if entry not in seen]
        assert seen
        assert unseen
        expected.append(anomaly_maps(heads, pictures.load(unseen)))
        cut = [f"{entry}-cut1-1" for entry in unseen]
        expected_synthetic.append(anomaly_maps(heads, pictures.load(cut)))
    assert len(maps.normal_NHW) == len(maps.synthetic_NHW) == 11
    assert torch.equal(maps.normal_NHW, torch.cat(expected))
    assert torch.equal(maps.synthetic_NHW, torch.cat(expected_synthetic))


def test_pictures_of_the_same_content_are_never_on_both_sides() -> None:
    pictures = Pictures(8)
    entries = [*pictures.entries, pictures.entries[0], pictures.entries[3]]
    maps = cross_fitted_maps(pictures.fit, pictures.load, entries, [], 4)
    assert len(maps.normal_NHW) == 10
    assert len(maps.synthetic_NHW) == 0
    for seen, _ in pictures.fits:
        assert len([entry for entry in entries if entry not in seen]) in (2, 3)


def test_with_few_normals_false_alarms_stay_at_the_requested_rate() -> None:
    """The detector is fitted on all 20; judged on 1,000 new normals, over several sets of 20.

    The scores that the threshold comes from must be out of fold: calibrated on pictures that the
    heads have seen, the same threshold lets far more new normals through as alarms.
    """
    new = Pictures(1000, seed=100)
    alarms = naive_alarms = 0
    trials = 6
    for seed in range(trials):
        few = Pictures(20, seed)
        heads = few.fit(few.entries)
        score_N = image_scores(anomaly_maps(heads, new.load(new.entries)), "mean")
        out_of_fold = cross_fitted_maps(few.fit, few.load, few.entries, [], 5)
        seen = held_out_maps(heads, few.load, few.entries, [])
        threshold, naive = (
            Calibration.from_scores(image_scores(maps.normal_NHW, "mean").tolist()).threshold(RATE)
            for maps in (out_of_fold, seen)
        )
        alarms += int((score_N > threshold).sum())
        naive_alarms += int((score_N > naive).sum())
    # A threshold from 20 scores is a random one: over new sets of 20 the rate spreads by
    # sqrt(RATE * (1 - RATE) / 22), which the mean over trials divides.
    allowed = RATE + 3 * (RATE * (1 - RATE) / 22 / trials) ** 0.5
    found = rate(alarms, trials * 1000)
    assert found is not None
    assert found.share <= allowed
    assert naive_alarms > 1.5 * alarms
