"""A fit of one worker opens no port for others; one of several trains in a process group."""

import os

import pytest
import torch.distributed as dist
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from nfbmr.train.process_group import torch_config


@pytest.mark.parametrize(("workers", "size"), [(1, 0), (2, 2)])
def test_only_several_workers_are_a_group(
    local_ray: None, tmp_path: object, workers: int, size: int
) -> None:
    """``MASTER_PORT`` is where PyTorch's meeting point would listen, on all addresses."""

    def look() -> dict[str, object]:
        joined = dist.get_world_size() if dist.is_initialized() else 0
        is_announced = "MASTER_PORT" in os.environ
        return {"size": joined, "is_announced": is_announced}

    result = TorchTrainer(
        look,
        torch_config=torch_config(workers),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="group", storage_path=str(tmp_path)),
    ).fit()
    assert result.return_value == {"size": size, "is_announced": size > 0}
