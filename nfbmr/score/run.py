"""A scoring run from request to finished data set; the same request again goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from nfbmr import __version__, storage
from nfbmr.errors import DataError, OutputError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.backbones import check_backbones
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.merge import merge_units, set_marker
from nfbmr.score.pipeline import score_units
from nfbmr.score.plan import Plan, make_plan
from nfbmr.score.plan_files import load_plan, save_plan
from nfbmr.score.schema import score_schema
from nfbmr.score.sources import list_sources
from nfbmr.score.statistics import WorkDone
from nfbmr.score.units import finished_units, read_marker
from nfbmr.settings import RunSettings
from nfbmr.store_faults import store_sentences


@dataclass(frozen=True)
class ScoringRequest:
    """What to score, with which models, where to.

    Attributes:
        sources: prefixes, tar or zip files; or a name for ``pictures``.
        output: folder or ``s3://`` prefix of the run's own.
        alias: alias or version of the models.
        category_pattern: see ``CategoryRule``.
        category: one for all pictures.
        weights: where the backbone's weights are, if not where they were at training.
    """

    sources: tuple[str, ...]
    output: str
    alias: str = "champion"
    category_pattern: str = "{category}/"
    category: str | None = None
    weights: str | None = None

    def identity(self) -> dict[str, Any]:
        """What makes two requests the same run."""
        values = asdict(self)
        # The weights may move while a run goes on; their hash is the model's.
        del values["output"], values["weights"]
        values["sources"] = sorted(storage.absolute_uri(source) for source in self.sources)
        return values


@dataclass(frozen=True)
class ScoringSummary:
    """What a finished run says of itself.

    Attributes:
        output: where the data set is.
        run_id: of the run.
        pictures: rows.
        failed: rows with an error.
        models: version per category.
        seconds_by_stage: summed over all workers, of the units scored in this session.
        cpu_seconds_by_stage: of them, what the processors worked.
        scored_now: pictures that were scored in this session; the others were there already.
    """

    output: str
    run_id: str
    pictures: int
    failed: int
    models: dict[str, str]
    seconds_by_stage: dict[str, float]
    cpu_seconds_by_stage: dict[str, float]
    scored_now: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score(
    request: ScoringRequest,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    pictures: Callable[[], pa.Table] | None = None,
) -> ScoringSummary:
    """Score everything that is asked for. Needs a Ray session.

    Args:
        request: what to score.
        registry: where the models are.
        settings: resources.
        progress: where it says what it does.
        pictures: lists what to score; by default the request's sources are listed.

    Raises:
        NfbmrError: missing sources, no models, or an output that holds another run.
    """
    output = storage.absolute_uri(request.output)
    with store_sentences(f"Scoring into {output}"):
        return _score(request, output, registry, settings, progress, pictures)


def _score(
    request: ScoringRequest,
    output: str,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    pictures: Callable[[], pa.Table] | None,
) -> ScoringSummary:
    plan = prepare(request, output, registry, settings, progress, pictures)
    marker = read_marker(output)
    if marker is not None:
        progress.say(f"{output} is finished already: {marker['pictures']} pictures")
        nothing = {"scored_now": 0, "seconds_by_stage": {}, "cpu_seconds_by_stage": {}}
        return ScoringSummary(**{**marker["run"], **nothing})
    schema = plan_schema(plan)
    work = _score_left(plan, output, schema, request, registry, settings, progress)
    failed = merge_units(plan, output, schema, lineage(plan))
    summary = ScoringSummary(
        output=output,
        run_id=plan.run_id,
        pictures=plan.pictures,
        failed=failed,
        models={name: model.version.version for name, model in plan.models.items()},
        seconds_by_stage=work.seconds,
        cpu_seconds_by_stage=work.cpu_seconds,
        scored_now=work.pictures,
    )
    set_marker(output, {**lineage(plan), "failed": failed, "run": summary.as_dict()})
    progress.say(f"{summary.pictures} rows ({failed} with an error) are in {output}")
    return summary


def prepare(
    request: ScoringRequest,
    output: str,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    pictures: Callable[[], pa.Table] | None = None,
) -> Plan:
    """The plan under an output, if it is of this request; else a new one, listed and saved.

    Args:
        request: what to score.
        output: absolute.
        registry: where models are pinned.
        settings: the size of a unit.
        progress: where it says what it does.
        pictures: lists what to score; by default the request's sources are listed.

    Raises:
        NfbmrError: missing sources, no models, or an output that holds another run.
    """
    plan = load_plan(output)
    if plan is not None:
        _check_same(plan, request, output)
        progress.say(f"Going on with the plan of {plan.pictures} pictures in {output}")
        return plan
    if storage.list_names(output):
        raise OutputError(
            f"The output {output} holds files but no plan of a scoring run: choose another "
            "--output, or empty it."
        )
    rule = CategoryRule(request.category_pattern, request.category)
    listed = pictures() if pictures else list_sources(request.sources, rule)
    if len(listed) == 0:
        raise DataError(f"There are no pictures in {', '.join(request.sources)}.")
    progress.say(f"Listed {len(listed)} pictures")
    identity = request.identity()
    plan, ordered = make_plan(listed, identity, registry, request.alias, settings.unit_size)
    save_plan(plan, ordered, output)
    counts = ", ".join(f"{name or '(none)'} {n}" for name, n in sorted(plan.counts().items()))
    progress.say(f"Planned {plan.pictures} pictures in {len(plan.units)} units: {counts}")
    for category, error in plan.model_errors.items():
        progress.say(f"  {error}: its {plan.counts()[category]} pictures will be error rows")
    return plan


def _check_same(plan: Plan, request: ScoringRequest, output: str) -> None:
    wanted = json.loads(json.dumps(request.identity()))
    different = [key for key, value in wanted.items() if plan.request.get(key) != value]
    if different:
        key = different[0]
        raise OutputError(
            f"The output {output} already holds another run: its {key} is "
            f"{plan.request.get(key)!r}, yours is {wanted[key]!r}. Choose another --output, or "
            "give the same arguments to go on with that run."
        )


def _score_left(
    plan: Plan,
    output: str,
    schema: pa.Schema,
    request: ScoringRequest,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
) -> WorkDone:
    """Run the pipeline over the units that are not committed yet."""
    finished = finished_units(output)
    left = [unit for unit in plan.units if unit.name not in finished]
    if finished:
        progress.say(f"{len(finished)} of {len(plan.units)} units were finished before")
    if not left:
        return WorkDone()
    check_backbones(plan, request.weights)
    return score_units(plan, left, output, schema, settings, registry, request.weights, progress)


def plan_schema(plan: Plan) -> pa.Schema:
    """The columns of a plan's rows."""
    shapes = [model.feature_shape for model in plan.models.values()]
    return score_schema({height * width for _, height, width in shapes})


def lineage(plan: Plan) -> dict[str, Any]:
    """What a run's files say about where they come from."""
    return {
        "nfbmr_version": __version__,
        "run_id": plan.run_id,
        "pictures": plan.pictures,
        "request": plan.request,
        "models": {name: model.version.version for name, model in plan.models.items()},
    }
