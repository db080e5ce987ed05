"""The backbones of a plan, tried before work starts."""

from __future__ import annotations

import json

from nfbmr.model.backbone import create_backbone
from nfbmr.model.detector import check_identity
from nfbmr.model.identity import settings_of_identity
from nfbmr.model.network import first_stage
from nfbmr.model.precision import MIXED
from nfbmr.score.plan import Plan


def check_backbones(plan: Plan, weights: str | None, forward: str) -> None:
    """Build every backbone that the plan's models need, once, and compare it with theirs.

    What is wrong with weights is one sentence now instead of an error in every row.

    Args:
        plan: whose models count.
        weights: where the weights are now, if not where they were at training.
        forward: how the forward passes are run, see ``FORWARD_MODES``.

    Raises:
        ConfigError: this timm cannot build the network any more, or it cannot be run that way.
        WeightsError: weights are missing, unreadable, or others than those of the fit.
    """
    checked: set[str] = set()
    for category, model in plan.models.items():
        source, who = weights or model.weights, f"The detector of {category!r}"
        key = json.dumps([model.backbone, source], sort_keys=True)
        if key not in checked:
            backbone = create_backbone(settings_of_identity(model.backbone, source, who))
            if forward == MIXED:
                first_stage(backbone.settings.name, backbone.network)
            check_identity(backbone, model.backbone, who)
            checked.add(key)
