"""A finished scoring run as a run in MLflow, beside the fits of its models."""

from __future__ import annotations

import json
import re
from typing import Any

from nfbmr.errors import RegistryError, StoreError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.dataset import finished_marker
from nfbmr.score.summary import ScoringSummary
from nfbmr.store_faults import store_sentences


def record_in_registry(summary: ScoringSummary, registry: Registry, progress: Progress) -> None:
    """Log parameters, counts, rates, seconds, models and drift; done again, it is the same run.

    The scores are finished whatever happens here: a registry that cannot be reached is a warning.

    Args:
        summary: of the finished run.
        registry: whose tracking server takes it.
        progress: where a warning is said.
    """
    try:
        with store_sentences(f"Reading {summary.output}"):
            request = finished_marker(summary.output)["request"]
        registry.record(
            key=summary.run_id,
            name=f"score {summary.run_id[:8]}",
            params=_params(summary, request),
            metrics=run_metrics(summary),
            files={"summary.json": json.dumps(summary.as_dict(), indent=1)},
        )
    except (RegistryError, StoreError) as error:
        progress.say(
            f"warning: the scores are finished, but not recorded in MLflow. {error} The same "
            "command again records them."
        )


def _params(summary: ScoringSummary, request: dict[str, Any]) -> dict[str, Any]:
    models = {f"model/{_plain(name)}": version for name, version in summary.models.items()}
    return {**request, "output": summary.output, **models}


def run_metrics(summary: ScoringSummary) -> dict[str, float]:
    """A summary's numbers by name; those of a session only where it scored something."""
    metrics: dict[str, float] = {"pictures": summary.pictures, "failed": summary.failed}
    for kind, count in summary.failed_by_kind.items():
        metrics[f"failed/{kind}"] = count
    if summary.scored_now:
        metrics |= {"scored_now": summary.scored_now, "elapsed_s": summary.elapsed_s}
        metrics |= {"fetched_bytes": summary.fetched_bytes}
        metrics |= {"pictures_per_s": summary.pictures_per_s or 0.0}
        for stage, seconds in summary.seconds_by_stage.items():
            metrics[f"seconds/{stage.removesuffix('_s')}"] = seconds
        for stage, seconds in summary.cpu_seconds_by_stage.items():
            metrics[f"cpu_seconds/{stage.removesuffix('_cpu_s')}"] = seconds
    for category, drift in summary.drift.items():
        for name in ("ks", "share_below_low", "calibration_size", "pictures"):
            if drift[name] is not None:
                metrics[f"drift/{_plain(category)}/{name}"] = drift[name]
    return metrics


def _plain(category: str) -> str:
    """A category as MLflow takes names: other characters by their code."""
    return re.sub(r"[^\w .:-]", lambda match: f"_{ord(match[0]):x}_", category, flags=re.ASCII)
