"""What one task of a pass over training pictures makes of costly ones."""

from pathlib import Path

import pyarrow as pa

from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.features import _Decoder
from tests.fuzz import seeds
from tests.security.test_limits import jpeg_of_many_scans


def test_costly_pictures_share_what_a_task_may_take(tmp_path: Path) -> None:
    """Found in review: one after the other they took longer than the pass may stand still."""
    bombs = [jpeg_of_many_scans(300, 20_000)] * 6
    uris = []
    for number, data in enumerate([*bombs, seeds.pictures()[0]]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        uris.append(str(path))
    settings = BackboneSettings(image_size_px=32)
    decoder = _Decoder(settings, FeatureCache(str(tmp_path), "key"), None, stall_timeout_s=1.0)
    batch = pa.table({"uri": uris, "variant": pa.array([0] * 7, pa.int32())})
    rows = decoder(batch).to_pylist()
    assert all("less than the usual 60 s" in row["error"] for row in rows[:6])
    assert rows[6]["error"] is None
    assert len(rows[6]["pixels"]) == 32 * 32 * 3
