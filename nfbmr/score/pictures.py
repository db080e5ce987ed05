"""From a row of scores back to its picture, and what a run says of itself, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from nfbmr import storage
from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.data.content import read_bytes
from nfbmr.data.manifest import look_up
from nfbmr.data.sample import Sample
from nfbmr.score.dataset import read_marker
from nfbmr.score.plan import PlannedPicture, pictures_table
from nfbmr.score.plan_files import load_plan


def stored_picture(row: Mapping[str, Any]) -> bytes:
    """The encoded bytes of a row's picture, from its file or archive.

    Raises:
        DataError: they cannot be read any more.
    """
    if "::" not in row["image_uri"]:
        return read_bytes(row["image_uri"])
    entry = ArchiveEntry(row["archive"], row["member"])
    return read_entry(_members(row["archive"]).get(row["member"], entry))


@lru_cache(maxsize=4)
def _members(archive: str) -> dict[str, ArchiveEntry]:
    """An archive's listing, kept: a report shows many pictures of one."""
    return {entry.member: entry for entry in list_archive(archive).entries}


def planned_samples(
    samples: Iterable[Sample], root: str, *, with_versions: bool = False
) -> pa.Table:
    """The test pictures of labelled data, as a scoring run plans them.

    Args:
        samples: those of the ``test`` split are taken.
        root: the data root, as it stands in the ``archive`` column.
        with_versions: look every file's size and version up, so that a change is noticed.
    """
    root = storage.absolute_uri(root)
    tested = [sample for sample in samples if sample.split == "test"]
    found = look_up([sample.uri for sample in tested]) if with_versions else {}
    return pictures_table(
        PlannedPicture(
            image_uri=sample.uri,
            archive=root,
            member=sample.uri.removeprefix(root).lstrip("/"),
            offset=None,
            length=found.get(sample.uri, (None, None))[0],
            version=found.get(sample.uri, (None, None))[1],
            category=sample.category,
        )
        for sample in tested
    )


def run_info(output: str) -> dict[str, str]:
    """What a finished run says of itself, by name."""
    output = storage.absolute_uri(output)
    info = {"scores": output}
    marker = read_marker(output)
    if marker is not None:
        info |= {"nfbmr at scoring": marker["nfbmr_version"], "run": marker["run"]["run_id"]}
        models = marker["run"]["models"]
        info["models"] = ", ".join(f"{name} v{version}" for name, version in models.items())
    plan = load_plan(output)
    if plan is not None:
        info["sources"] = ", ".join(plan.request["sources"])
    return info
