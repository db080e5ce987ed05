"""The jobs' settings and the groups of nodes that the manifests give them."""

import tomllib
from typing import Any

from nfbmr.config import Config, load_config
from tests.cluster.manifests import one


def mounted_settings(path: str) -> Config:
    """The settings file that the cluster's nodes have at a path, as the jobs read it."""
    data = one("ConfigMap", "nfbmr-settings")["data"]
    folder, _, name = path.rpartition("/")
    for group in groups():
        mounts = {m["mountPath"]: m["name"] for m in group["containers"][0]["volumeMounts"]}
        volumes = {v["name"]: v for v in group["volumes"]}
        assert volumes[mounts[folder]]["configMap"]["name"] == "nfbmr-settings"
    overrides = [
        f"{section}.{key}={value!r}".replace("'", '"')
        for section, values in tomllib.loads(data[name]).items()
        for key, value in values.items()
    ]
    return load_config(None, overrides)


def groups() -> list[dict[str, Any]]:
    spec = one("RayCluster")["spec"]
    templates = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in templates]


def worker_group(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A group of the Ray cluster, and what each of its pods asks for."""
    (group,) = [g for g in one("RayCluster")["spec"]["workerGroupSpecs"] if g["groupName"] == name]
    (container,) = group["template"]["spec"]["containers"]
    return group, container["resources"]["requests"]
