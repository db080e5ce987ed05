"""What is written is read; what is damaged is missing, never trusted."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfbmr.train.feature_cache import FeatureCache


@pytest.fixture(params=["disk", "object store"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureCache:
    if request.param == "disk":
        return FeatureCache(str(tmp_path), "key")
    return FeatureCache(request.getfixturevalue("s3_bucket"), "key")


def test_features_come_back_rounded_to_half_precision(cache: FeatureCache) -> None:
    first, second = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    cache.write("aa01", first)
    cache.write("bb02", second)
    y_NCHW = cache.load(["bb02", "aa01", "bb02"])
    assert y_NCHW.dtype == torch.float16
    assert torch.equal(y_NCHW, torch.stack([second, first, second]).half())
    assert cache.present(["aa01", "bb02", "cc03"]) == {"aa01", "bb02"}


def test_what_half_precision_cannot_hold_is_clipped_not_infinite(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.full((1, 1, 2), 1e6))
    read = cache.read("aa")
    assert read is not None
    assert torch.isfinite(read).all()


def test_another_backbone_has_another_cache(tmp_path: Path) -> None:
    FeatureCache(str(tmp_path), "one").write("aa", torch.zeros(1, 1, 1))
    assert FeatureCache(str(tmp_path), "other").read("aa") is None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_any_changed_or_missing_byte_makes_an_entry_missing(
    tmp_path: Path, place: int, flip: int, cut: bool
) -> None:
    cache = FeatureCache(str(tmp_path), "key")
    cache.write("aa", torch.randn(2, 3, 4))
    path = next(tmp_path.rglob("*.features"))
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= flip
    path.write_bytes(bytes(data))
    assert cache.read("aa") is None
    assert cache.present(["aa"]) == set()
    with pytest.raises(KeyError, match="1 of 1 features are not in the cache"):
        cache.load(["aa"])
