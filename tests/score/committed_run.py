"""Scoring runs whose units are committed, made without models or Ray."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from nfbmr.model_version import ModelVersion
from nfbmr.progress import Progress
from nfbmr.score.finish import finish
from nfbmr.score.plan import Plan, PlannedModel, PlannedPicture, pictures_table
from nfbmr.score.plan_files import save_plan, unit_uris
from nfbmr.score.planned_units import cut_units
from nfbmr.score.schema import missing_map, score_schema
from nfbmr.score.statistics import WorkDone
from nfbmr.score.summary import ScoringSummary
from nfbmr.score.units import write_unit
from nfbmr.settings import RunSettings

CALIBRATION_SIZE = 199
MAP_SHAPE = (3, 4)
QUIET = Progress(quiet=True)


def committed(
    output: str,
    pictures: Sequence[int] = (9,),
    categories: Sequence[str] = ("bottle",),
    unit_size: int = 3,
    map_type: str = "float16",
    request: dict[str, Any] | None = None,
) -> tuple[Plan, pa.Schema]:
    """A saved plan whose units are all there; every third picture is an error.

    Args:
        output: of the run.
        pictures: of each category.
        categories: their names, sorted.
        unit_size: pictures per unit.
        map_type: of the maps.
        request: see ``Plan``.
    """
    plan, ordered = planned(pictures, categories, unit_size)
    plan = plan if request is None else replace(plan, request=request)
    save_plan(plan, ordered, output)
    schema = score_schema({MAP_SHAPE[0] * MAP_SHAPE[1]}, map_type)
    for unit in plan.units:
        uris = unit_uris(output, plan.run_id, unit)
        write_unit(output, unit.name, rows(uris, unit.category, schema))
    return plan, schema


def planned(
    pictures: Sequence[int], categories: Sequence[str], unit_size: int = 3
) -> tuple[Plan, pa.Table]:
    """A plan, and its pictures in order."""
    listed = [
        PlannedPicture(f"x::{name}/{i:06d}", "x", f"{name}/{i:06d}", 0, 1, "v", name)
        for name, count in zip(categories, pictures, strict=True)
        for i in range(count)
    ]
    ordered = pictures_table(listed)
    models = {name: _model(name) for name in categories if name}
    plan = Plan("r" * 32, {"sources": ["x"]}, models, {}, cut_units(ordered, unit_size))
    return plan, ordered


def _model(category: str) -> PlannedModel:
    version = ModelVersion(category, f"nfbmr-{category}", "1", "m", "file:///none", (), {}, 0.0)
    return PlannedModel(version, {"image_size_px": 64}, "embedded", (8, *MAP_SHAPE))


def rows(uris: Sequence[str], category: str, schema: pa.Schema) -> pa.Table:
    """Rows of some pictures; the number in a picture's name decides what is in its row."""
    made = []
    for uri in uris:
        number = int(uri[-6:])
        row = dict.fromkeys(schema.names)
        row |= {"image_uri": uri, "archive": "x", "member": uri[3:], "category": category}
        row |= {"run_id": "r" * 32, "scored_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}
        if number % 3 == 0:
            row |= {"status": "error", "error": "It is no picture.", "error_kind": "unsupported"}
            row["anomaly_map"] = missing_map(schema)
        else:
            row |= {"status": "ok", "score": number / 2, "threshold": 1.0, "is_anomalous": False}
            row |= {"p_value": (number % 200 + 1) / 200, "calibration_size": CALIBRATION_SIZE}
            row |= {"map_height": MAP_SHAPE[0], "map_width": MAP_SHAPE[1]}
            row["anomaly_map"] = [np.float16(number % 100 + i / 4) for i in range(12)]
        made.append(row)
    return pa.Table.from_pylist(made, schema=schema)


def finished(output: str, plan: Plan, schema: pa.Schema, settings: RunSettings) -> ScoringSummary:
    """The end of a run, as ``score`` reaches it."""
    return finish(plan, output, schema, settings, WorkDone(), 0.0, QUIET)
