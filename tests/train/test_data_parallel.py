"""Two real workers (gloo) do what one does on the union of their pictures."""

import dataclasses
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from nfbmr.fit_settings import FitSettings
from nfbmr.model.flow import flow_loss
from nfbmr.model.heads import Heads
from nfbmr.model.mapper import mapper_loss
from nfbmr.train.data_parallel import Workers
from nfbmr.train.fit import fit_heads
from tests.train.test_fit import FIT, HEADS, SHAPE, features

BATCHES = (8, 7, 1)
FLOAT32 = dataclasses.replace(
    FIT, precision="float32", batch_size=9, flow_epochs=3, mapper_epochs=3
)
EARLY = dataclasses.replace(
    FLOAT32,
    flow_epochs=60,
    mapper_epochs=2,
    batch_size=8,
    schedule="constant",
    flow_learning_rate=5e-3,
    early_stop_patience=3,
    early_stop_share=0.3,
)
"""The flow overfits these few pictures and ends early."""


def gradients(workers: Workers, count: int) -> dict[str, torch.Tensor]:
    """Of flow and mapper on a batch of so many pictures, as a step of the fit computes them."""
    torch.manual_seed(0)
    heads = Heads(SHAPE, HEADS)
    assert heads.mapper is not None
    for parameter in heads.parameters():  # The last layers start at zero and would hide the rest.
        nn.init.normal_(parameter, std=0.1) if parameter.requires_grad else None
    y_NCHW = features()
    own_B, weight = workers.share(torch.arange(count))
    flow, mapper = workers.wrapped(heads.flow), workers.wrapped(heads.mapper)
    z_BCHW, log_det_B = flow(y_NCHW[own_B])
    (flow_loss(z_BCHW, log_det_B) * weight).backward()
    z_BCHW = z_BCHW.detach()
    y_hat_BCHW, z_hat_BCHW = mapper(y_NCHW[own_B], z_BCHW)
    losses = mapper_loss(y_NCHW[own_B], y_hat_BCHW, z_BCHW, z_hat_BCHW)
    (torch.stack(losses).sum() * weight).backward()
    return {
        name: parameter.grad
        for name, parameter in heads.named_parameters()
        if parameter.grad is not None
    }


def fitted(settings: FitSettings = FLOAT32, pictures: int = 50) -> dict[str, torch.Tensor]:
    """Losses by epoch and final weights of a whole fit."""
    losses: list[float] = []
    heads = fit_heads(
        features(pictures),
        HEADS,
        settings,
        category="bottle",
        report=lambda epoch: losses.extend(epoch.losses.values()),
    )
    return {"losses": torch.tensor(losses), **heads.state_dict()}


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    workers = Workers.current()
    assert (workers.rank, workers.count) == (rank, 2)
    for count in BATCHES:
        found = gradients(workers, count)
        safetensors.torch.save_file(found, Path(folder) / f"gradients-{count}-{rank}")
    safetensors.torch.save_file(fitted(), Path(folder) / f"fit-{rank}")
    safetensors.torch.save_file(fitted(EARLY, 24), Path(folder) / f"early-{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("count", BATCHES)
def test_gradients_of_two_workers_are_those_of_one_on_the_union_batch(
    two_workers: Path, count: int
) -> None:
    """Also for an odd batch, and for one with fewer pictures than workers."""
    alone = gradients(Workers(), count)
    for rank in (0, 1):
        together = safetensors.torch.load_file(two_workers / f"gradients-{count}-{rank}")
        assert together.keys() == alone.keys()
        assert any(name.startswith("mapper") for name in alone)
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_fit_of_two_workers_has_the_losses_and_weights_of_one(two_workers: Path) -> None:
    alone = fitted()
    first = safetensors.torch.load_file(two_workers / "fit-0")
    second = safetensors.torch.load_file(two_workers / "fit-1")
    assert len(alone["losses"]) == 3 + 2 * 3
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    assert len(second["losses"]) == 0
    for name, tensor in alone.items():
        if name != "losses":
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], tensor, rtol=1e-2, atol=1e-3)


def test_two_workers_end_early_in_the_same_epoch(two_workers: Path) -> None:
    """Or one would wait for the other for ever."""
    first = safetensors.torch.load_file(two_workers / "early-0")
    second = safetensors.torch.load_file(two_workers / "early-1")
    flow_epochs = (len(first["losses"]) - 3 * EARLY.mapper_epochs) // 2
    assert EARLY.early_stop_patience < flow_epochs < EARLY.flow_epochs
    for name, tensor in first.items():
        if name != "losses":
            assert torch.equal(tensor, second[name]), name


def test_one_worker_alone_is_left_alone() -> None:
    module = nn.Linear(2, 2)
    assert Workers.current() == Workers()
    assert Workers().wrapped(module) is module
    index_B, weight = Workers().share(torch.arange(5))
    assert (len(index_B), weight) == (5, 1.0)
