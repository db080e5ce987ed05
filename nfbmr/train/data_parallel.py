"""Several workers that fit one category together: whose share of a batch is what, and its weight.

All workers hold the same permutation of the pictures and cut every batch the same way, so that a
step of many workers is a step of one on the whole batch, whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class Workers:
    """This worker's place among those that fit together.

    Attributes:
        rank: from 0; the first one reports and saves.
        count: 1 for a fit by itself.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Workers:
        """The workers of ``torch.distributed``, where it was set up; else one alone."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this worker reports, saves and calibrates."""
        return self.rank == 0

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the workers after every backward pass."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)

    def share(self, index_B: Tensor) -> tuple[Tensor, float]:
        """This worker's pictures of a batch, and the weight of their mean loss.

        Averaging the weighted gradients of the workers gives the gradient of the mean loss over
        the whole batch also where the shares are of unequal size. A worker without a picture
        takes the batch's first with weight 0: it has to take part in the exchange.
        """
        if self.count == 1:
            return index_B, 1.0
        own = index_B[self.rank :: self.count]
        if len(own) == 0:
            return index_B[:1], 0.0
        return own, self.count * len(own) / len(index_B)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the workers; every one of them gets it."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values
