"""Where the models of a scoring run lie, of those in files."""

from __future__ import annotations

from collections.abc import Iterable

from nfbmr.score.plan import PlannedModel
from nfbmr.shared_places import weights_in_files


def places_of_models(models: Iterable[PlannedModel], weights: str | None) -> list[str]:
    """Where the actors of a run find models and weights, of those in files: each place once.

    Args:
        models: of the plan.
        weights: of the backbone, if not where they were at training.
    """
    models = list(models)
    files = weights_in_files([weights] if weights else [model.weights for model in models])
    folders = [model.version.source for model in models]
    return list(dict.fromkeys([*files, *(f for f in folders if f.startswith(("/", "file://")))]))
