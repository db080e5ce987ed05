"""What the manifests promise about who may reach what, and as whom pods run."""

import os
import re
import subprocess
from pathlib import Path

from tests.cluster.manifests import (
    CLUSTER,
    containers,
    everything,
    load,
    one,
    pod_specs,
    walk,
)

README = (CLUSTER / "README.md").read_text()


def secrets_referred_to() -> set[tuple[str, str]]:
    """Name and key of every secret; an empty key for all of its keys."""
    found = set()
    for mapping in (m for manifest in everything() for m in walk(manifest)):
        if "secretKeyRef" in mapping:
            found.add((mapping["secretKeyRef"]["name"], mapping["secretKeyRef"]["key"]))
        if "secretRef" in mapping:
            found.add((mapping["secretRef"]["name"], ""))
        if "secret" in mapping:
            secret = mapping["secret"]
            found |= {(secret["secretName"], item["key"]) for item in secret["items"]}
        if mapping.get("mode") == "token":
            found.add((mapping["secretName"], "auth_token"))
    return found


def test_secrets_are_only_referred_to() -> None:
    assert not [m for m in everything() if m["kind"] == "Secret"]
    secret_names = re.compile(r"password|secret|token|access_key|credential", re.IGNORECASE)
    for container in containers():
        for variable in container.get("env", []):
            if secret_names.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]
    for config in (m for m in everything() if m["kind"] == "ConfigMap"):
        for key, value in config["data"].items():
            assert not secret_names.search(key), key
            assert not re.search(r"://[^/\s]+:[^/\s]+@", value), f"{key} holds a password"


def test_the_readme_says_how_every_secret_is_made() -> None:
    for name, key in secrets_referred_to():
        made = re.findall(rf"create secret generic {name}\b(?:.*\\\n)*.*", README)
        assert made, f"README.md does not make the secret {name}"
        assert key in made[0], f"README.md does not give {name} its {key}"


STUB = """#!/bin/sh
echo "$@" >> "$SEEN/words"
for word in "$@"; do
    case "$word" in --from-file=*)
        file="${word#--from-file=}"
        test "$(stat -c %a "$file" "$(dirname "$file")")" = "$(printf '600\\n700')" || exit 1
        cp "$file" "$SEEN/" ;;
    esac
done
"""


def test_the_readmes_way_to_make_secrets_shows_them_to_nobody(tmp_path: Path) -> None:
    """The block of the README is run, with a kubectl that notes what it is given."""
    start = README.index("kubectl apply -f cluster/kubernetes/namespace.yaml")
    block = README[start : README.index("```", start)]
    (tmp_path / "kubectl").write_text(STUB)
    (tmp_path / "kubectl").chmod(0o700)
    seen, scratch = tmp_path / "seen", tmp_path / "scratch"
    seen.mkdir()
    scratch.mkdir()
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SEEN": str(seen),
        "TMPDIR": str(scratch),
        "STORE_KEY": "planted-key",
        "STORE_SECRET": "planted-secret",
    }
    subprocess.run(["bash", "-ec", block], check=True, env=environment, timeout=60)
    assert not list(scratch.iterdir()), "what was written is removed"
    words = (seen / "words").read_text()
    made = {path.name: path.read_text() for path in seen.iterdir() if path.name != "words"}
    assert {key for _, key in secrets_referred_to() if key} <= set(made)
    assert made["AWS_SECRET_ACCESS_KEY"] == "planted-secret"
    for name, text in made.items():
        assert name == "basic_auth.ini" or text == text.strip(), f"{name} ends with a line's end"
        assert text in ("admin", "night") or text not in words, f"{name} is on a command line"
    assert len({made["password"], made["admin-password"], made["MLFLOW_TRACKING_PASSWORD"]}) == 3
    assert "--from-literal" not in README


def test_ray_asks_for_its_token_and_submitters_have_it() -> None:
    options = one("RayCluster")["spec"]["authOptions"]
    assert options == {"mode": "token", "secretName": "nfbmr-ray-token"}
    (container,) = one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    reference = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": options["secretName"], "key": "auth_token"}


def test_mlflow_wants_a_login_and_a_known_host() -> None:
    arguments = dict(
        argument.removeprefix("--").partition("=")[::2]
        for argument in one("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    assert arguments["app-name"] == "basic-auth"
    hosts = arguments["allowed-hosts"].split(",")
    assert "*" not in arguments["allowed-hosts"]
    assert "disable-security-middleware" not in arguments
    uri = one("ConfigMap", "nfbmr-environment")["data"]["MLFLOW_TRACKING_URI"]
    assert uri.removeprefix("http://") in hosts


def test_no_pod_runs_as_root_or_can_become_it() -> None:
    for spec in pod_specs():
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            contained = container["securityContext"]
            assert contained["allowPrivilegeEscalation"] is False
            assert contained["readOnlyRootFilesystem"] is True
            assert contained["capabilities"] == {"drop": ["ALL"]}
    namespace = one("Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_head_has_a_token_of_the_kubernetes_api() -> None:
    head = one("RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    for spec in pod_specs():
        assert spec.get("automountServiceAccountToken", True) is (spec == head)


def test_nothing_is_published_outside_the_cluster() -> None:
    services = [m for m in everything() if m["kind"] in ("Service", "Ingress", "Gateway")]
    for service in services:
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    head = one("RayCluster")["spec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert "enableIngress" not in head


def test_traffic_is_denied_unless_a_policy_names_it() -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in load("network-policies.yaml")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], f"{name} lets everybody in"
            for peer in rule["from"]:
                assert peer != {"podSelector": {}}
                assert peer != {"namespaceSelector": {}}
        for rule in policy.get("egress", []):
            assert rule["to"], f"{name} lets everything out"
            for peer in rule["to"]:
                if peer.get("ipBlock") == {"cidr": "169.254.20.10/32"}:  # names, from the node
                    assert {port["port"] for port in rule["ports"]} == {53}
                elif "ipBlock" in peer:
                    assert "169.254.0.0/16" in peer["ipBlock"]["except"]
                    ports = {port["port"] for port in rule["ports"]}
                    selected = policy["podSelector"]["matchLabels"]
                    is_head = selected.get("ray.io/node-type") == "head"
                    assert ports == ({443, 6443} if is_head else {443})


def test_metrics_are_for_the_namespaces_that_carry_the_readmes_label() -> None:
    policies = {m["metadata"]["name"]: m["spec"] for m in load("network-policies.yaml")}
    (rule,) = policies["ray-metrics"]["ingress"]
    (peer,) = rule["from"]
    ((label, value),) = peer["namespaceSelector"]["matchLabels"].items()
    assert f"{label}={value}" in README
    assert [port["port"] for port in rule["ports"]] == [8080]


def test_every_pod_is_covered_by_the_policies_that_name_it() -> None:
    """Each label that a policy selects by is one that a pod of ours, KubeRay or DNS carries."""
    own = [
        m["metadata"]["labels"]
        for manifest in everything()
        for m in walk(manifest)
        if "spec" in m and "containers" in m["spec"] and "metadata" in m
    ]
    # Put on by KubeRay, its chart and Kubernetes.
    foreign = [
        {"ray.io/cluster": one("RayCluster")["metadata"]["name"], "ray.io/node-type": "head"}
    ]
    foreign += [{"app.kubernetes.io/name": "kuberay-operator"}, {"k8s-app": "kube-dns"}]
    carried = [*own, *foreign]
    for policy in load("network-policies.yaml"):
        for mapping in walk(policy["spec"]):
            wanted = mapping.get("podSelector", {}).get("matchLabels", {})
            assert any(wanted.items() <= labels.items() for labels in carried), wanted
