"""Folders that a run on several nodes needs are seen by all of them, or the run does not begin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.model.weights import EMBEDDED, PRETRAINED, RANDOM

_PATIENCE_S = 30.0
_WILDCARDS = re.compile(r"[*?\[]")


def weights_in_files(sources: Iterable[str]) -> list[str]:
    """Those weights that are files, on a disk or in an object store."""
    return [source for source in sources if source not in (EMBEDDED, PRETRAINED, RANDOM)]


def has_several_nodes() -> bool:
    """Whether a worker may run on another node than this process."""
    return len(_alive()) > 1


def check_seen_by_all_nodes(uris: Sequence[str]) -> None:
    """Ask every node of the cluster for files and folders that this node sees.

    Without it each picture would be an error row on the nodes that do not have them. Nodes that
    join later are not asked.

    Args:
        uris: paths, patterns and URIs; those in object stores are the same everywhere.

    Raises:
        OutputError: a node does not see one of them.
    """
    local = local_places(uris)
    nodes = _alive()
    if not local or len(nodes) < 2:
        return
    ask = ray.remote(num_cpus=0, max_retries=0)(_unseen)
    asked = {
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(local): node["NodeManagerAddress"]
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
    refuse_unseen({asked[answer]: _answer(answer) for answer in answered})


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def local_places(uris: Iterable[str]) -> list[str]:
    """The paths among paths, patterns and URIs that are there; of a pattern the folder above it."""
    found = (storage.absolute_uri(uri) for uri in uris)
    paths = [_without_wildcards(Path(uri)) for uri in found if "://" not in uri]
    return [str(path) for path in dict.fromkeys(paths) if path.exists()]


def _without_wildcards(path: Path) -> Path:
    """The path, or the last folder before its first part with a wildcard."""
    if path.exists():
        return path
    return next(p for p in (path, *path.parents) if not _WILDCARDS.search(str(p)))


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def _answer(reference: ray.ObjectRef) -> list[str]:
    """What a node does not see; a node that is lost meanwhile runs nothing."""
    try:
        return list(ray.get(reference))
    except RayError:
        return []


def refuse_unseen(unseen: Mapping[str, Sequence[str]]) -> None:
    """Raise for the first node that does not see something.

    Args:
        unseen: paths, by the address of the node that does not see them.

    Raises:
        OutputError: naming node and path.
    """
    for node, paths in unseen.items():
        if paths:
            raise OutputError(
                f"{paths[0]} is here, but not on the cluster's node {node}: give pictures, an "
                "--output or --work-dir, a registry and weights that all nodes reach, as an object "
                "store or a share that is mounted on each of them."
            )
