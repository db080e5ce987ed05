"""Wrong values in the manifests are refused, and those that refer to each other agree."""

import copy
import re
from typing import Any

import pytest
from lightkube.models import apps_v1, batch_v1, core_v1, networking_v1
from msgspec.json import schema
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

from nfbmr.data.picture_file import DEFAULT_LIMITS
from tests.cluster.kubernetes_values import VALUES
from tests.cluster.manifests import everything, is_valid, load, one, walk
from tests.cluster.settings_of_manifests import mounted_settings, worker_group

WRONG: list[tuple[str, Any]] = [
    ("memory", "64GiB"),
    ("memory", "64 Gi"),
    ("memory", "512m"),
    ("cpu", "four"),
    ("cpu", "4Gi"),
    ("nvidia.com/gpu", "0.5"),
    ("storage", "20GB"),
    ("sizeLimit", "1gi"),
    ("schedule", "every night"),
    ("schedule", "0 25 * * *"),
    ("schedule", "0 22 * *"),
    ("timeZone", "utc time"),
    ("concurrencyPolicy", "Forbit"),
    ("activeDeadlineSeconds", 0),
    ("backoffLimit", -1),
    ("action", "FailJobs"),
    ("restartPolicy", "Nevr"),
    ("policyTypes", ["Ingress", "Egres"]),
    ("protocol", "TPC"),
    ("port", 70000),
    ("port", "no port"),
    ("targetPort", "no port"),
    ("targetPort", 0),
    ("containerPort", 70000),
    ("cidr", "0.0.0.0"),
    ("cidr", "0.0.0.300/8"),
    ("except", ["169.254.0.0/99"]),
    ("accessModes", ["ReadWriteonce"]),
    ("effect", "NoSchedul"),
    ("mountPath", "tmp"),
    ("upscalingMode", "Fast"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_value_that_kubernetes_does_not_take_is_refused_wherever_it_stands(
    field: str, value: Any
) -> None:
    found = 0
    for manifest in everything():
        for number, mapping in enumerate(walk(manifest)):
            if field in mapping and not isinstance(mapping[field], dict):
                found += 1
                damaged = copy.deepcopy(manifest)
                walk(damaged)[number][field] = value
                assert not is_valid(damaged), mapping
    assert found, f"no manifest has a field {field}"


def test_a_resource_with_a_typo_is_refused() -> None:
    damaged = copy.deepcopy(one("Deployment"))
    (container,) = damaged["spec"]["template"]["spec"]["containers"]
    container["resources"]["limits"]["memroy"] = "4Gi"
    assert not is_valid(damaged)


def test_every_narrowed_field_is_one_of_kubernetes() -> None:
    kinds = (core_v1.Pod, core_v1.Service, apps_v1.StatefulSet)
    kinds += (batch_v1.CronJob, networking_v1.NetworkPolicy)
    known = {name: each for kind in kinds for name, each in schema(kind)["$defs"].items()}
    for name, fields in VALUES.items():
        assert set(fields) <= set(known[name]["properties"]), name


def pods() -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Labels and containers' description of every pod; KubeRay labels those of a RayCluster."""
    found = []
    cluster = one("RayCluster")
    of_ray = {"ray.io/cluster": cluster["metadata"]["name"]}
    head, *workers = (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"])
    found.append(({**of_ray, "ray.io/node-type": "head"}, head["template"]["spec"]))
    for group in workers:
        found.append(({**of_ray, "ray.io/node-type": "worker"}, group["template"]["spec"]))
    for manifest in everything():
        if manifest["kind"] != "RayCluster":
            found += [
                (m["metadata"]["labels"], m["spec"])
                for m in walk(manifest)
                if "containers" in m.get("spec", {}) and "metadata" in m
            ]
    return found


def selected(labels: dict[str, str]) -> list[dict[str, Any]]:
    """The pods that have all these labels."""
    return [spec for carried, spec in pods() if labels.items() <= carried.items()]


def ports_of(spec: dict[str, Any]) -> set[str | int]:
    """Names and numbers of the ports on which a pod listens."""
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports}


def test_every_service_leads_to_a_port_of_one_kind_of_pod() -> None:
    services = [m for m in everything() if m["kind"] == "Service"]
    assert services
    for service in services:
        (spec,) = selected(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports_of(spec), service["metadata"]["name"]


def test_probes_ask_ports_that_their_containers_have() -> None:
    for _, spec in pods():
        for container in spec["containers"]:
            for probe in (container.get(f"{kind}Probe", {}) for kind in ("readiness", "liveness")):
                if "httpGet" in probe:
                    assert probe["httpGet"]["port"] in ports_of({"containers": [container]})


def test_policies_speak_of_ports_on_which_pods_listen() -> None:
    """A rule about a port that nobody has lets nobody through."""
    for policy in load("network-policies.yaml"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        own = selected(spec["podSelector"].get("matchLabels", {}))
        assert own, f"{name} selects no pod"
        for rule in spec.get("ingress", []):
            for port in rule.get("ports", []):
                assert all(port["port"] in ports_of(pod) for pod in own), name
        for rule in spec.get("egress", []):
            peers = [p["podSelector"] for p in rule["to"] if set(p) == {"podSelector"}]
            for pod in (pod for peer in peers for pod in selected(peer["matchLabels"])):
                assert all(port["port"] in ports_of(pod) for port in rule.get("ports", [])), name


SIZES = {"Mi": 2**20, "Gi": 2**30}
BYTES_PER_DECODED_PIXEL = 21
"""At most, while a picture is converted (``DecodingRoom``); large ones take turns."""
PROCESS_BYTES = 3 * 2**30
"""Of a process with PyTorch and its CUDA libraries."""


def in_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * SIZES[unit]


@pytest.mark.parametrize("file", ["night.toml", "score.toml"])
def test_a_gpu_pod_holds_what_its_settings_promise(file: str) -> None:
    """Ray's object store, and for each actor its heads, two units' pixels and large pictures."""
    config = mounted_settings(f"/etc/nfbmr/{file}")
    run, night = config.run, mounted_settings("/etc/nfbmr/night.toml")
    _, requests = worker_group("gpu")
    size = night.backbone.image_size_px
    units = 2 * run.unit_size * size**2 * 3
    pictures = DEFAULT_LIMITS.max_pixels * BYTES_PER_DECODED_PIXEL
    actor = PROCESS_BYTES + run.heads_cache_mib * 2**20 + units + pictures
    actors = int(requests["nvidia.com/gpu"]) / run.gpus_per_actor
    memory = in_bytes(requests["memory"])
    assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory + actors * actor <= memory
