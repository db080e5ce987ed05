"""Listing and planning as a run does it, in one call."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from nfbmr.registry import Registry
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.plan import Plan, make_plan
from nfbmr.score.plan_files import PlanWriter
from nfbmr.score.sources import list_sources

RUN_ID = "e" * 32


def listed(sources: Sequence[str], rule: CategoryRule | None = None, **options: Any) -> pa.Table:
    """All pictures of the sources in one table."""
    return pa.concat_tables(list_sources(sources, rule or CategoryRule(), **options))


def saved_plan(
    chunks: Iterable[pa.Table],
    registry: Registry,
    output: str,
    alias: str = "champion",
    unit_size: int = 7,
) -> Plan:
    """A plan of pictures that come in chunks, written as a run writes it."""
    writer = PlanWriter(output, RUN_ID)
    for chunk in chunks:
        writer.add(chunk, unit_size)
    plan = make_plan(RUN_ID, writer.units(), {"sources": ["x"]}, registry, alias)
    writer.finish(plan)
    return plan
