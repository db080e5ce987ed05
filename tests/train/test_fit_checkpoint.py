"""The state between attempts: kept when it is time, found with the losses that belong to it."""

from pathlib import Path

import pytest
import torch

from nfbmr import storage
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_checkpoint import FitCheckpoint
from nfbmr.train.fit_state import StageState

LOSSES = [EpochLosses("flow", 1, 2, {"flow_loss": 0.1 + 0.2}), EpochLosses("flow", 2, 2, {})]


def state() -> StageState:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    generator = torch.Generator().manual_seed(0)
    return StageState(
        "flow", 2, 8, {"w": parameter}, optimizer.state_dict(), None, generator.get_state()
    )


@pytest.fixture(params=["disk", "object store"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "a" / "fit.safetensors")
    return f"{request.getfixturevalue('s3_bucket')}/a/fit.safetensors"


def test_a_state_is_found_with_its_losses_and_seconds(uri: str) -> None:
    first = FitCheckpoint(uri, list(LOSSES), interval_s=0)
    assert first.load() is None
    assert first.wants()
    first.keep(state())
    assert first.wants()
    losses: list[EpochLosses] = []
    second = FitCheckpoint(uri, losses, interval_s=0)
    found = second.load()
    assert found is not None
    assert (found.stage, found.epoch, found.step) == ("flow", 2, 8)
    assert losses == LOSSES
    assert second.seconds > 0
    storage.write_atomically(uri, b"damaged")
    third = FitCheckpoint(uri, [], interval_s=0)
    assert third.load() is None


def test_states_are_not_kept_more_often_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    assert not FitCheckpoint(str(path), [], interval_s=60).wants()
    assert not FitCheckpoint(None, [], interval_s=0).wants()
    checkpoint = FitCheckpoint(str(path), [], interval_s=1e-9)
    assert checkpoint.wants()
    checkpoint.keep(state())
    assert not checkpoint.wants(), "writing may take a twentieth of the time, not more"
