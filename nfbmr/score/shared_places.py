"""Folders that a run on several nodes needs are seen by all of them, or the run does not begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nfbmr import storage
from nfbmr.errors import OutputError

_PATIENCE_S = 30.0


def check_seen_by_all_nodes(uris: Sequence[str]) -> None:
    """Ask every node of the cluster for files and folders that this node sees.

    Without it each picture would be an error row on the nodes that do not have them. Nodes that
    join later are not asked.

    Args:
        uris: paths and URIs; those in object stores are the same everywhere.

    Raises:
        OutputError: a node does not see one of them.
    """
    paths = [storage.absolute_uri(uri) for uri in uris]
    local = [path for path in paths if "://" not in path and Path(path).exists()]
    nodes = [node for node in ray.nodes() if node["Alive"]]
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
                f"{paths[0]} is here, but not on the cluster's node {node}: give archives and an "
                "--output that all nodes reach, as an object store or a share that is mounted on "
                "each of them."
            )
