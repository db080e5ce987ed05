"""Ending a stage early: where the loss on pictures that are not learned from stops falling."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class EarlyStop:
    """Remembers the best epoch and its weights.

    Attributes:
        patience: epochs without a new best loss after which the stage is over; 0 never ends it
            and remembers nothing.
        best_loss: the lowest so far.
        epochs_since_best: epochs since then.
        best: the weights of the best epoch, by name.
    """

    patience: int
    best_loss: float = math.inf
    epochs_since_best: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the loss has not fallen for ``patience`` epochs."""
        return 0 < self.patience <= self.epochs_since_best

    def note(self, loss: float, module: nn.Module) -> None:
        """Take an epoch's loss on watched pictures, and the weights if it is the best."""
        if loss < self.best_loss:
            self.best_loss = loss
            self.epochs_since_best = 0
            self.best = {name: t.detach().clone() for name, t in module.state_dict().items()}
        else:
            self.epochs_since_best += 1

    def restore_best(self, module: nn.Module) -> None:
        """Give the module the weights of the best epoch, where there is one."""
        if self.best:
            module.load_state_dict(self.best)
