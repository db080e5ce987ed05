"""Which values Kubernetes takes where its own schema says no more than "a string" or "a number".

``VALUES`` names them by type and field; what is here narrows the schema, and never widens it.
"""

from typing import Any

Schema = dict[str, Any]


def one_of(*words: str) -> Schema:
    return {"enum": list(words)}


def text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def listed(schema: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": schema}


def _cron() -> str:
    """Five fields, each a star, numbers, ranges and steps of its own range."""
    minute, hour = r"[0-5]?\d", r"(?:[01]?\d|2[0-3])"
    day, month, weekday = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"[0-6]"

    def field(value: str) -> str:
        part = rf"(?:\*|{value}(?:-{value})?)(?:/[1-9]\d*)?"
        return rf"{part}(?:,{part})*"

    return " ".join(field(value) for value in (minute, hour, day, month, weekday))


_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
CIDR = text(rf"{_OCTET}(?:\.{_OCTET}){{3}}/(?:3[0-2]|[12]?\d)")
CRON = text(_cron())
CORES = text(r"\d+(?:\.\d{1,3})?|\d+m")
BYTES = text(r"\d+(?:\.\d+)?(?:[KMGTPE]i|[kMGTPE])?")
WHOLE = text(r"\d+")
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"cpu": CORES, "memory": BYTES, "storage": BYTES, "ephemeral-storage": BYTES},
    "patternProperties": {r"^[a-z0-9.-]+/[a-z0-9.-]+$": WHOLE},
}
NAME = text(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
PORT_NAME = text(r"(?=.*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")
PORT_OR_NAME = {"anyOf": [PORT, PORT_NAME]}
PROTOCOL = one_of("TCP", "UDP", "SCTP")
SECONDS = {"type": "integer", "minimum": 1}
COUNT = {"type": "integer", "minimum": 0}

VALUES: dict[str, dict[str, Schema]] = {
    "ObjectMeta": {"name": NAME, "generateName": text(r"[a-z0-9][a-z0-9.-]*"), "namespace": NAME},
    "ResourceRequirements": {"requests": RESOURCES, "limits": RESOURCES},
    "VolumeResourceRequirements": {"requests": RESOURCES, "limits": RESOURCES},
    "EmptyDirVolumeSource": {"sizeLimit": BYTES, "medium": one_of("", "Memory")},
    "PersistentVolumeClaimSpec": {
        "accessModes": listed(
            one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
        )
    },
    "CronJobSpec": {
        "schedule": CRON,
        "timeZone": text(r"[A-Z][A-Za-z_]*(?:/[A-Za-z0-9_+-]+)*"),
        "concurrencyPolicy": one_of("Allow", "Forbid", "Replace"),
        "startingDeadlineSeconds": SECONDS,
    },
    "JobSpec": {"activeDeadlineSeconds": SECONDS, "backoffLimit": COUNT},
    "PodFailurePolicyRule": {"action": one_of("FailJob", "FailIndex", "Ignore", "Count")},
    "PodFailurePolicyOnExitCodesRequirement": {"operator": one_of("In", "NotIn")},
    "NetworkPolicySpec": {"policyTypes": listed(one_of("Ingress", "Egress"))},
    "NetworkPolicyPort": {"port": PORT_OR_NAME, "protocol": PROTOCOL},
    "IPBlock": {"cidr": CIDR, "except": listed(CIDR)},
    "ServiceSpec": {"type": one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")},
    "ServicePort": {
        "port": PORT,
        "targetPort": PORT_OR_NAME,
        "protocol": PROTOCOL,
        "name": PORT_NAME,
    },
    "ContainerPort": {"containerPort": PORT, "protocol": PROTOCOL, "name": PORT_NAME},
    "HTTPGetAction": {"port": PORT_OR_NAME, "path": text("/.*"), "scheme": one_of("HTTP", "HTTPS")},
    "Probe": dict.fromkeys(("periodSeconds", "timeoutSeconds", "failureThreshold"), SECONDS),
    "PodSpec": {"restartPolicy": one_of("Always", "OnFailure", "Never")},
    "Container": {"imagePullPolicy": one_of("Always", "IfNotPresent", "Never")},
    "EnvVar": {"name": text(r"[A-Za-z_][A-Za-z0-9_]*")},
    "VolumeMount": {"mountPath": text("/[^:]*")},
    "SeccompProfile": {"type": one_of("RuntimeDefault", "Localhost", "Unconfined")},
    "Toleration": {
        "operator": one_of("Exists", "Equal"),
        "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
    },
}


def narrowed(name: str, schema: Schema) -> Schema:
    """A type's schema with the values that its fields may have.

    Raises:
        KeyError: the type has no field of a name in ``VALUES``.
    """
    if name not in VALUES:
        return schema
    fields = dict(schema["properties"])
    for field, value in VALUES[name].items():
        fields[field] = {"allOf": [fields[field], value]}
    return {**schema, "properties": fields}
