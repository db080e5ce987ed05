"""How the workers of one fit find and talk to each other."""

from __future__ import annotations

from ray.train.backend import Backend
from ray.train.torch import TorchConfig


class _NoGroup(Backend):  # type: ignore[misc]  # Ray's packages are not looked into
    """Opens nothing."""


class AloneConfig(TorchConfig):  # type: ignore[misc]  # Ray's packages are not looked into
    """For a worker on its own: no process group.

    Ray Train opens one for a single worker as well. Its meeting point (PyTorch's ``TCPStore``)
    listens on all of a machine's addresses and asks nobody for a token, for as long as the fit
    runs; and NCCL refuses a node whose GPU is only declared.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train sets up around the workers."""
        return _NoGroup


def torch_config(workers: int) -> TorchConfig:
    """The set-up of a fit's workers; where they are several, Ray Train chooses NCCL or Gloo.

    Args:
        workers: of one fit.
    """
    return AloneConfig() if workers == 1 else TorchConfig()
