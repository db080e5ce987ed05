"""Every manifest fits the schemas of Kubernetes and of KubeRay; a typo does not."""

import copy
import json
import re
import shlex
import string
from typing import Any

import pytest

import jobs.score
import jobs.train
from nfbmr import __version__
from tests.cluster import manifests
from tests.cluster.manifests import CLUSTER, FOLDER, containers, load, one, pod_specs, walk
from tests.cluster.settings_of_manifests import mounted_settings, worker_group
from tests.cluster.submit_script import load_script

ROOT = CLUSTER.parent
SUBMIT = load_script()
LOCK = (ROOT / "requirements.lock").read_text()
README = (CLUSTER / "README.md").read_text()


@pytest.mark.parametrize("name", manifests.file_names())
def test_every_object_fits_its_schema(name: str) -> None:
    found = load(name)
    assert found
    for manifest in found:
        validator = manifests.validator_of(manifest["apiVersion"], manifest["kind"])
        assert not [e.json_path + ": " + e.message for e in validator.iter_errors(manifest)]
        assert manifests.is_valid(manifest)


def is_free(key: str, value: Any) -> bool:
    """Whether the keys below are names of ours: those of a service's selector are labels."""
    if key == "selector":
        return all(isinstance(label, str) for label in value.values())
    return key in {*manifests.TEXT_MAPS, "requests", "limits", "rayStartParams"}


def places(value: Any) -> list[dict[str, Any]]:
    """Mappings whose keys are fields of a type."""
    if isinstance(value, dict):
        return [value, *(m for k, v in value.items() if not is_free(k, v) for m in places(v))]
    return [m for v in value for m in places(v)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", manifests.file_names())
def test_a_field_with_a_typo_is_refused_wherever_it_stands(name: str) -> None:
    """A misspelt field is added to every mapping of every object, one after the other."""
    for manifest in load(name):
        for number in range(len(places(manifest))):
            damaged = copy.deepcopy(manifest)
            places(damaged)[number]["resourcez"] = {}
            assert not manifests.is_valid(damaged), places(damaged)[number]


def test_a_label_that_is_no_text_is_refused() -> None:
    damaged = copy.deepcopy(one("RayCluster"))
    damaged["metadata"]["labels"]["fast"] = True
    assert not manifests.is_valid(damaged)


def test_a_value_of_another_type_is_refused() -> None:
    for path, value in (("maxReplicas", "8"), ("rayStartParams", {"num-cpus": 0})):
        damaged = copy.deepcopy(one("RayCluster"))
        damaged["spec"]["workerGroupSpecs"][0][path] = value
        assert not manifests.is_valid(damaged)


def test_the_kustomization_names_every_manifest_but_the_one_with_parameters() -> None:
    (kustomization,) = load("kustomization.yaml")
    assert set(kustomization["resources"]) | {"kustomization.yaml", "score.yaml"} == set(
        manifests.file_names()
    )


def test_images_are_those_that_the_kustomization_tags_with_our_version() -> None:
    (kustomization,) = load("kustomization.yaml")
    tagged = {image["name"]: image for image in kustomization["images"]}
    used = {c["image"] for c in containers()}
    assert {image for image in used if image.startswith("nfbmr")} == set(tagged)
    for name, image in tagged.items():
        version, _, variant = image["newTag"].partition("-")
        assert version == __version__
        assert variant in ("cuda", name.removeprefix("nfbmr-"))
        assert (ROOT / "cluster" / f"requirements-{variant}.lock").exists(), image
    for image in used - set(tagged):
        assert re.fullmatch(r"[a-z/]+:\d[\w.-]*", image), f"{image} is not pinned to a version"


def test_pods_with_our_image_can_log_in_where_it_lies() -> None:
    """With the secret that the walk-through makes; a pod without it pulls without a log-in."""
    secret = re.search(r"create secret generic (\S+) --type=kubernetes.io/docker", README)
    assert secret is not None
    for spec in pod_specs():
        ours = any(c["image"].startswith("nfbmr") for c in spec["containers"])
        assert spec.get("imagePullSecrets", []) == ([{"name": secret[1]}] if ours else [])


def test_the_upgrade_of_the_registry_replaces_a_command_that_is_there() -> None:
    patch = re.search(r"patch deployment/(\S+) --type=json --patch='([^']+)'", README)
    assert patch is not None
    (change,) = json.loads(patch[2])
    found: Any = one("Deployment", patch[1])
    for step in change["path"].strip("/").split("/"):
        found = found[int(step) if step.isdigit() else step]
    assert found == ["mlflow", "server"]
    variable = re.search(r"db upgrade \"\$(\w+)\"", change["value"][-1])
    (container,) = one("Deployment", patch[1])["spec"]["template"]["spec"]["containers"]
    assert variable is not None
    assert variable[1] in {entry["name"] for entry in container["env"]}


def test_a_job_on_a_cluster_that_it_did_not_make_is_not_repeated_by_kuberay() -> None:
    """KubeRay refuses it, and versions before deleted the cluster between two attempts."""
    for job in (document for document in load("score.yaml") if document["kind"] == "RayJob"):
        assert "clusterSelector" in job["spec"]
        assert job["spec"]["backoffLimit"] == 0


def test_a_night_that_ended_is_not_begun_again_by_its_scheduler() -> None:
    job = one("CronJob")["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [SUBMIT.ENDED_BADLY]
    assert job["backoffLimit"] > 0, "a cluster that did not answer is tried again"
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_the_cluster_runs_the_ray_that_is_locked() -> None:
    (version,) = re.findall(r"^ray==(\S+)", LOCK, re.MULTILINE)
    assert one("RayCluster")["spec"]["rayVersion"] == version


def job_command(words: list[str]) -> tuple[str, list[str]]:
    """Name and arguments of the job that a command line runs."""
    assert words[:2] == ["python", "-m"], words
    module = words[2]
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{module} is no job"
    return module, words[3:]


def test_the_night_is_a_command_that_the_job_takes() -> None:
    (container,) = one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    module, arguments = job_command(container["args"])
    assert module == "jobs.train"
    parsed = jobs.train._parser().parse_args(arguments)
    assert parsed.data.startswith("s3://")
    assert mounted_settings(parsed.config)


def test_bulk_scoring_is_a_command_that_the_job_takes_with_archive_and_output() -> None:
    (text,) = [m["spec"]["entrypoint"] for m in load("score.yaml")]
    values = {"ARCHIVE": "s3://factory/a b.tar", "OUTPUT": "s3://factory/scores"}
    module, arguments = job_command(shlex.split(string.Template(text).substitute(values)))
    assert module == "jobs.score"
    parsed = jobs.score._parser().parse_args(arguments)
    assert (parsed.sources, parsed.output) == (["s3://factory/a b.tar"], "s3://factory/scores")
    assert mounted_settings(parsed.config)


@pytest.mark.parametrize("file", ["night.toml", "score.toml"])
def test_what_the_jobs_ask_for_fits_the_groups(file: str) -> None:
    run = mounted_settings(f"/etc/nfbmr/{file}").run
    group, requests = worker_group("gpu")
    per_node = int(requests["nvidia.com/gpu"])
    assert 0 < run.actors_max * run.gpus_per_actor <= run.gpus <= per_node * group["maxReplicas"]
    assert run.gpus_per_actor <= per_node
    assert per_node % run.gpus_per_actor == 0
    assert per_node % run.gpus_per_fit == 0
    assert run.decode_threads * (per_node / run.gpus_per_actor) <= int(requests["cpu"])
    # A fit asks for no cores beside its GPU share, but its process needs one.
    assert per_node / run.gpus_per_fit <= int(requests["cpu"])
    _, cpu_requests = worker_group("cpu")
    assert run.cpus_per_actor <= int(cpu_requests["cpu"])


def test_the_night_and_scoring_together_take_the_gpus_that_there_are() -> None:
    """Each would wait for the other's otherwise: neither gives back what it holds."""
    group, requests = worker_group("gpu")
    shares = [mounted_settings(f"/etc/nfbmr/{name}.toml").run.gpus for name in ("night", "score")]
    assert sum(shares) == int(requests["nvidia.com/gpu"]) * group["maxReplicas"]


def test_both_groups_shrink_to_nothing_and_the_gpu_group_grows() -> None:
    spec = one("RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == 0
        assert group["maxReplicas"] > 1
    _, requests = worker_group("cpu")
    assert "nvidia.com/gpu" not in requests


def test_only_one_night_runs() -> None:
    spec = one("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    program, *options = container["command"]
    assert program == "nfbmr-submit"
    parsed = SUBMIT._parser().parse_args([*options, "true"])
    assert (parsed.name, parsed.id) == ("night", "night-$(NIGHT)")
    # The same in every pod that Kubernetes starts for one night, another in the next night.
    (night,) = [v for v in container["env"] if v["name"] == "NIGHT"]
    path = "metadata.labels['batch.kubernetes.io/controller-uid']"
    assert night["valueFrom"]["fieldRef"]["fieldPath"] == path
    copied = (CLUSTER / "Containerfile").read_text()
    assert "COPY cluster/submit.py /opt/nfbmr/bin/nfbmr-submit" in copied


def test_a_night_ends_before_the_next_is_due_and_gives_a_late_cluster_time() -> None:
    job = one("CronJob")["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] < 24 * 3600
    (container,) = job["template"]["spec"]["containers"]
    wait_min = SUBMIT._parser().parse_args([*container["command"][1:], "true"]).wait_min
    tries = job["backoffLimit"] + 1
    assert 30 * 60 <= 60 * wait_min * tries < job["activeDeadlineSeconds"]


def test_every_container_says_what_it_needs() -> None:
    for container in containers():
        requests, limits = (container["resources"][k] for k in ("requests", "limits"))
        assert {"cpu", "memory"} <= set(requests)
        assert requests["memory"] == limits["memory"] or container["name"] == "submit"


def test_shell_variables_stand_only_where_they_are_filled_in() -> None:
    for name in manifests.file_names():
        variables = set(re.findall(r"\$\{(\w+)\}", (FOLDER / name).read_text()))
        assert variables == ({"ARCHIVE", "OUTPUT"} if name == "score.yaml" else set()), name


def test_what_is_mounted_and_referred_to_exists() -> None:
    """Volumes of mounts, config maps of volumes and environments, ports of services."""
    maps = {m["metadata"]["name"] for m in manifests.everything() if m["kind"] == "ConfigMap"}
    for spec in pod_specs():
        volumes = {v["name"] for v in spec.get("volumes", [])} | {"data"}
        for container in spec["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes
    for found in (m for manifest in manifests.everything() for m in walk(manifest)):
        for key in ("configMap", "configMapRef"):
            if key in found:
                assert found[key]["name"] in maps
