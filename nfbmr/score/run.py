"""A scoring run from request to finished data set; the same request again goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import ray

from nfbmr import __version__, storage
from nfbmr.errors import DataError, OutputError
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.resources import actor_pool, ray_data_session
from nfbmr.score.backbones import check_backbones
from nfbmr.score.plan import (
    CategoryRule,
    Plan,
    PlannedPicture,
    list_sources,
    load_plan,
    make_plan,
    save_plan,
)
from nfbmr.score.schema import ERROR, score_schema
from nfbmr.score.stages import Decoder, Scorer
from nfbmr.score.units import finished_units, merge_units, read_marker, read_unit
from nfbmr.settings import RunSettings

_UNIT_SCHEMA = pa.schema(
    [("unit", pa.string()), ("category", pa.string()), ("pictures", pa.string())]
)


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
        scored_now: pictures that were scored in this session; the others were there already.
    """

    output: str
    run_id: str
    pictures: int
    failed: int
    models: dict[str, str]
    seconds_by_stage: dict[str, float]
    scored_now: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score(
    request: ScoringRequest,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    pictures: Callable[[], list[PlannedPicture]] | None = None,
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
    plan = _plan(request, output, registry, settings, progress, pictures)
    marker = read_marker(output)
    if marker is not None:
        progress.say(f"{output} is finished already: {marker['pictures']} pictures")
        return ScoringSummary(**{**marker["run"], "scored_now": 0, "seconds_by_stage": {}})
    schema = score_schema({m.feature_shape[1] * m.feature_shape[2] for m in plan.models.values()})
    units = plan.units()
    seconds, scored_now = _score_units(
        plan, units, output, schema, request, registry, settings, progress
    )
    failed = _count_failed(output, units)
    summary = ScoringSummary(
        output=output,
        run_id=plan.run_id,
        pictures=len(plan.pictures),
        failed=failed,
        models={name: model.version.version for name, model in plan.models.items()},
        seconds_by_stage=seconds,
        scored_now=scored_now,
    )
    merge_units(output, list(units), schema, _lineage(plan, summary))
    progress.say(f"{summary.pictures} rows ({failed} with an error) are in {output}")
    return summary


def _plan(
    request: ScoringRequest,
    output: str,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
    pictures: Callable[[], list[PlannedPicture]] | None,
) -> Plan:
    """The plan that is there, if it is of this request; else a new one."""
    plan = load_plan(output)
    if plan is not None:
        _check_same(plan, request, output)
        progress.say(f"Going on with the plan of {len(plan.pictures)} pictures in {output}")
        return plan
    if storage.list_names(output):
        raise OutputError(
            f"The output {output} holds files but no plan of a scoring run: choose another "
            "--output, or empty it."
        )
    rule = CategoryRule(request.category_pattern, request.category)
    listed = pictures() if pictures else list_sources(request.sources, rule)
    if not listed:
        raise DataError(f"There are no pictures in {', '.join(request.sources)}.")
    plan = make_plan(listed, request.identity(), registry, request.alias, settings.unit_size)
    save_plan(plan, output)
    counts = ", ".join(f"{name or '(none)'} {n}" for name, n in sorted(plan.counts().items()))
    progress.say(f"Planned {len(plan.pictures)} pictures in {len(plan.units())} units: {counts}")
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


def _score_units(
    plan: Plan,
    units: Mapping[str, Sequence[PlannedPicture]],
    output: str,
    schema: pa.Schema,
    request: ScoringRequest,
    registry: Registry,
    settings: RunSettings,
    progress: Progress,
) -> tuple[dict[str, float], int]:
    """Run the pipeline over the units that are not committed yet."""
    finished = finished_units(output)
    left = {name: pictures for name, pictures in units.items() if name not in finished}
    if finished:
        progress.say(f"{len(finished)} of {len(units)} units were finished before")
    seconds: Counter[str] = Counter()
    done = 0
    if not left:
        return {}, 0
    check_backbones(plan, request.weights)
    total = sum(len(pictures) for pictures in left.values())
    with ray_data_session("scoring"), progress.counter("scored", total) as count:
        rows = ray.data.from_arrow([_unit_table(n, p) for n, p in left.items()])
        decoded = rows.map_batches(
            Decoder(plan.models, plan.model_errors),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.25,
        )
        results = decoded.map_batches(
            Scorer,
            fn_constructor_args=(
                plan.models,
                output,
                plan.run_id,
                schema,
                settings,
                registry.uri,
                request.weights,
            ),
            batch_size=1,
            batch_format="pyarrow",
            **actor_pool(settings, len(left)),
        )
        for row in results.iter_rows():
            done += row["pictures"]
            for stage in ("fetch_s", "decode_s", "forward_s", "commit_s"):
                seconds[stage] += row[stage]
            count(done)
    return dict(seconds), done


def _unit_table(unit: str, pictures: Sequence[PlannedPicture]) -> pa.Table:
    row = {
        "unit": unit,
        "category": pictures[0].category,
        "pictures": json.dumps([asdict(picture) for picture in pictures]),
    }
    return pa.Table.from_pylist([row], schema=_UNIT_SCHEMA)


def _count_failed(output: str, units: Mapping[str, Sequence[PlannedPicture]]) -> int:
    """Error rows over all units; also the proof that every planned picture has its row.

    Raises:
        OutputError: a unit has other rows than the plan says.
    """
    failed = 0
    for unit, pictures in units.items():
        table = read_unit(output, unit)
        if table.column("image_uri").to_pylist() != [p.image_uri for p in pictures]:
            raise OutputError(
                f"Unit {unit} in {output} does not hold the pictures of the plan: remove its file "
                "and run the same command again."
            )
        failed += sum(status == ERROR for status in table.column("status").to_pylist())
    return failed


def _lineage(plan: Plan, summary: ScoringSummary) -> dict[str, Any]:
    return {
        "nfbmr_version": __version__,
        "pictures": summary.pictures,
        "failed": summary.failed,
        "request": plan.request,
        "run": summary.as_dict(),
    }
