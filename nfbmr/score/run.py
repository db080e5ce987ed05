"""A scoring run from request to finished data set; the same request again goes on."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from nfbmr import storage, store_folders
from nfbmr.data.table_columns import USUAL_COLUMNS, TableColumns
from nfbmr.errors import DataError, OutputError
from nfbmr.output_place import check_place
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.backbones import check_backbones
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.dataset import finished_marker, is_being_retried, read_marker
from nfbmr.score.finish import finish, plan_schema, recounted
from nfbmr.score.listing_store import ListingStore
from nfbmr.score.model_places import places_of_models
from nfbmr.score.parts import check_folders
from nfbmr.score.pipeline import score_units
from nfbmr.score.plan import Plan, make_plan
from nfbmr.score.plan_files import (
    INDEX_FOLDER,
    LISTING_FOLDER,
    PLAN_FOLDER,
    PlanWriter,
    load_plan,
    remove_other_plans,
)
from nfbmr.score.publish import is_published, remove_leftovers
from nfbmr.score.sources import list_sources
from nfbmr.score.statistics import WorkDone
from nfbmr.score.status import begin_session
from nfbmr.score.summary import ScoringSummary
from nfbmr.score.units import finished_units
from nfbmr.settings import RunSettings
from nfbmr.shared_places import check_seen_by_all_nodes
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
        columns: of Parquet files and manifests among the sources.
    """

    sources: tuple[str, ...]
    output: str
    alias: str = "champion"
    category_pattern: str = "{category}/"
    category: str | None = None
    weights: str | None = None
    columns: TableColumns = USUAL_COLUMNS

    def identity(self) -> dict[str, Any]:
        """What makes two requests the same run."""
        values = asdict(self)
        # The weights may move while a run goes on; their hash is the model's.
        del values["output"], values["weights"]
        values["sources"] = sorted(storage.absolute_uri(source) for source in self.sources)
        return values


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
    check_place(request.output)
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
        remove_leftovers(output)
        remove_other_plans(plan, output)
        return _finished_before(output, settings, progress)
    started = time.monotonic()
    check_folders(plan.counts(), output, settings.output)
    schema = plan_schema(plan, settings.output.map_type)
    work = WorkDone()
    if is_published(output):
        progress.say(f"The data set in {output} is whole and has only lost its marker")
    else:
        work = _score_left(plan, output, schema, request, registry, settings, progress)
    return finish(plan, output, schema, settings, work, started, progress)


def _finished_before(output: str, settings: RunSettings, progress: Progress) -> ScoringSummary:
    """The summary of a run that is finished, counted anew where its marker may be behind."""
    marker = finished_marker(output)
    if not is_being_retried(output):
        return ScoringSummary.of_earlier(marker["run"])
    progress.say(
        "warning: scoring its error rows again was begun and is not finished: where that was cut "
        "off, the same command with --retry-failed goes on with it. The counts are of the rows as "
        "they are now"
    )
    now = recounted(output, marker, settings, WorkDone(), time.monotonic())
    return ScoringSummary.of_earlier(now.as_dict())


@store_sentences("Planning")
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
    _check_empty(output)
    rule = CategoryRule(request.category_pattern, request.category)
    folder = storage.join(output, PLAN_FOLDER)
    store = ListingStore(storage.join(folder, LISTING_FOLDER))
    indexes = storage.join(folder, INDEX_FOLDER)
    listed = (
        [pictures()]
        if pictures
        else list_sources(request.sources, rule, request.columns, indexes, store, progress)
    )
    writer = PlanWriter(output, uuid.uuid4().hex)
    with progress.busy("Listing"):
        for count in _written(writer, listed, settings.unit_size):
            progress.say(f"Listed {count} pictures")
    units = writer.units()
    if store.found:
        progress.say(f"{store.found} slices of the sources had been listed before")
    if len(units) == 0:
        raise DataError(f"There are no pictures in {', '.join(request.sources)}.")
    own = make_plan(writer.run_id, units, request.identity(), registry, request.alias)
    writer.finish(own)
    plan = load_plan(output) or own
    if plan.run_id != own.run_id:
        writer.discard()
    _check_same(plan, request, output)
    store.clear()
    counts = ", ".join(f"{name or '(none)'} {n}" for name, n in sorted(plan.counts().items()))
    progress.say(f"Planned {plan.pictures} pictures in {len(plan.units)} units: {counts}")
    for category, error in plan.model_errors.items():
        progress.say(f"  {error}: its {plan.counts()[category]} pictures will be error rows")
    return plan


def _check_empty(output: str) -> None:
    """Refuse an output with files or folders that are not a run's own: publishing tidies it up.

    Raises:
        OutputError: naming one.
    """
    folders = [name for name in store_folders.list_folders(output) if name != PLAN_FOLDER]
    found = [*store_folders.list_names(output), *(f"{name}/" for name in folders)]
    if found:
        raise OutputError(
            f"The output {output} holds files but no plan of a scoring run ({found[0]}, "
            f"{len(found)} in all): choose another --output, or empty it."
        )


def _written(writer: PlanWriter, listed: Iterable[pa.Table], unit_size: int) -> Iterator[int]:
    """Write what is listed into the plan; how many pictures there are, after each table."""
    count = 0
    for table in listed:
        writer.add(table, unit_size)
        count += len(table)
        yield count


def _check_same(plan: Plan, request: ScoringRequest, output: str) -> None:
    wanted = json.loads(json.dumps(request.identity()))
    planned = {**plan.request}
    if isinstance(planned.get("sources"), list):  # As addresses are written now.
        planned["sources"] = sorted(storage.absolute_uri(str(s)) for s in planned["sources"])
    different = [key for key, value in wanted.items() if planned.get(key) != value]
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
    left = plan.units.without(finished)
    if finished:
        progress.say(f"{len(finished)} of {len(plan.units)} units were finished before")
    if not left:
        return WorkDone()
    check_backbones(plan, request.weights, settings.forward)
    places = places_of_models(plan.models.values(), request.weights)
    check_seen_by_all_nodes([*request.sources, storage.join(output, PLAN_FOLDER), *places])
    before = begin_session(output, settings.forward)
    if before not in (None, settings.forward):
        progress.say(
            f"warning: the run was begun with run.forward = {before!r} and goes on with "
            f"{settings.forward!r}: its scores differ by what the summary says of this session"
        )
    return score_units(
        plan, left, output, schema, settings, registry, request.weights, progress, finished
    )
