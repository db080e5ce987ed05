"""The manifests of ``cluster/kubernetes`` as objects, and the schemas that they have to fit."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import yaml
from lightkube.models import apps_v1, batch_v1, core_v1, networking_v1

from tests.cluster.kuberay_schema import RESOURCES
from tests.cluster.kubernetes_values import narrowed

CLUSTER = Path(__file__).parents[2] / "cluster"
FOLDER = CLUSTER / "kubernetes"

KINDS = {
    ("v1", "Namespace"): core_v1.Namespace,
    ("v1", "ConfigMap"): core_v1.ConfigMap,
    ("v1", "Secret"): core_v1.Secret,
    ("v1", "Service"): core_v1.Service,
    ("apps/v1", "Deployment"): apps_v1.Deployment,
    ("apps/v1", "StatefulSet"): apps_v1.StatefulSet,
    ("batch/v1", "CronJob"): batch_v1.CronJob,
    ("networking.k8s.io/v1", "NetworkPolicy"): networking_v1.NetworkPolicy,
}

# What kustomize itself reads; the API server never sees it.
KUSTOMIZATION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resources"],
    "properties": {
        "apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"},
        "kind": {"const": "Kustomization"},
        "namespace": {"type": "string"},
        "resources": {"type": "array", "items": {"type": "string"}},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    name: {"type": "string"} for name in ("name", "newName", "newTag", "digest")
                },
            },
        },
    },
}


def _strict(definitions: dict[str, Any]) -> dict[str, Any]:
    """Types that refuse fields and values they do not know; free-form objects stay free."""
    return {
        name: {**narrowed(name, schema), "additionalProperties": False}
        if "properties" in schema
        else schema
        for name, schema in definitions.items()
    }


# Maps from names of ours to strings: the schema leaves their values open, Kubernetes does not.
TEXT_MAPS = {"labels", "annotations", "matchLabels", "data", "clusterSelector"}


@cache
def validator_of(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    """The strict validator of a kind of object.

    Raises:
        KeyError: the kind is not known.
    """
    return jsonschema.Draft202012Validator(_schema_of(api_version, kind))


def _schema_of(api_version: str, kind: str) -> dict[str, Any]:
    if api_version == "ray.io/v1":
        pod = msgspec.json.schema(core_v1.PodTemplateSpec)["$defs"]
        service = msgspec.json.schema(core_v1.Service)["$defs"]
        definitions = {**service, **pod}
        return {**RESOURCES[kind], "$defs": _strict(definitions)}
    if kind == "Kustomization":
        return KUSTOMIZATION
    schema = msgspec.json.schema(KINDS[api_version, kind])
    return {**schema, "$defs": _strict(schema["$defs"])}


def is_valid(manifest: dict[str, Any]) -> bool:
    """Whether a manifest has only known fields, with values that Kubernetes takes."""
    return bool(validator_of(manifest["apiVersion"], manifest["kind"]).is_valid(manifest)) and not [
        value
        for mapping in walk(manifest)
        for name in TEXT_MAPS & set(mapping)
        for value in mapping[name].values()
        if not isinstance(value, str)
    ]


def load(name: str) -> list[dict[str, Any]]:
    """All objects of a file."""
    return [d for d in yaml.safe_load_all((FOLDER / name).read_text()) if d is not None]


def file_names() -> list[str]:
    """All manifests."""
    return sorted(path.name for path in FOLDER.glob("*.yaml"))


def everything() -> list[dict[str, Any]]:
    """All objects of all files."""
    return [manifest for name in file_names() for manifest in load(name)]


def one(kind: str, name: str = "") -> dict[str, Any]:
    """The object of a kind (and name)."""
    found = [
        m
        for m in everything()
        if m["kind"] == kind and (not name or m["metadata"].get("name") == name)
    ]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {name}"
    return found[0]


def walk(value: Any) -> list[dict[str, Any]]:
    """Every mapping in a value, at any depth."""
    if isinstance(value, dict):
        return [value, *(m for v in value.values() for m in walk(v))]
    if isinstance(value, list):
        return [m for v in value for m in walk(v)]
    return []


def pod_specs() -> list[dict[str, Any]]:
    """Every pod that the manifests describe."""
    return [m for manifest in everything() for m in walk(manifest) if "containers" in m]


def containers() -> list[dict[str, Any]]:
    """Every container of every pod."""
    return [c for spec in pod_specs() for c in spec["containers"]]
