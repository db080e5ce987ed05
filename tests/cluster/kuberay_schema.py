"""Ray's custom resources as JSON Schema, in the part that the manifests use.

The field names and types are those of KubeRay's ``ray.io/v1`` at version 1.6; what is a Kubernetes
type there is taken from the Kubernetes schema. A field that is not here is refused: add it after
looking it up in KubeRay's API reference.
"""

from typing import Any

from tests.cluster.kubernetes_values import CRON

STRING = {"type": "string"}
BOOLEAN = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def kubernetes(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


AUTOSCALER_OPTIONS = closed(
    {
        "version": {"enum": ["v1", "v2"]},
        "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
        "idleTimeoutSeconds": COUNT,
        "image": STRING,
        "imagePullPolicy": STRING,
        "resources": kubernetes("ResourceRequirements"),
        "securityContext": kubernetes("SecurityContext"),
        "env": {"type": "array", "items": kubernetes("EnvVar")},
        "envFrom": {"type": "array", "items": kubernetes("EnvFromSource")},
        "volumeMounts": {"type": "array", "items": kubernetes("VolumeMount")},
    }
)
AUTH_OPTIONS = closed(
    {
        "mode": {"enum": ["disabled", "token"]},
        "secretName": STRING,
        "enableK8sTokenAuth": BOOLEAN,
    }
)
HEAD_GROUP = closed(
    {
        "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        "headService": kubernetes("Service"),
        "enableIngress": BOOLEAN,
        "rayStartParams": STRINGS,
        "resources": STRINGS,
        "labels": STRINGS,
        "template": kubernetes("PodTemplateSpec"),
    },
    "template",
)
WORKER_GROUP = closed(
    {
        "groupName": STRING,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "numOfHosts": COUNT,
        "idleTimeoutSeconds": COUNT,
        "suspend": BOOLEAN,
        "rayStartParams": STRINGS,
        "resources": STRINGS,
        "labels": STRINGS,
        "template": kubernetes("PodTemplateSpec"),
    },
    "groupName",
    "template",
)
CLUSTER_SPEC = closed(
    {
        "rayVersion": STRING,
        "suspend": BOOLEAN,
        "managedBy": STRING,
        "enableInTreeAutoscaling": BOOLEAN,
        "authOptions": AUTH_OPTIONS,
        "autoscalerOptions": AUTOSCALER_OPTIONS,
        "headServiceAnnotations": STRINGS,
        "headGroupSpec": HEAD_GROUP,
        "workerGroupSpecs": {"type": "array", "items": WORKER_GROUP},
    },
    "headGroupSpec",
)
JOB_SPEC = closed(
    {
        "entrypoint": STRING,
        "runtimeEnvYAML": STRING,
        "jobId": STRING,
        "metadata": STRINGS,
        "clusterSelector": STRINGS,
        "rayClusterSpec": CLUSTER_SPEC,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "submitterPodTemplate": kubernetes("PodTemplateSpec"),
        "submitterConfig": closed({"backoffLimit": COUNT}),
        "backoffLimit": COUNT,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "ttlSecondsAfterFinished": COUNT,
        "shutdownAfterJobFinishes": BOOLEAN,
        "suspend": BOOLEAN,
        "entrypointNumCpus": {"type": "number"},
        "entrypointNumGpus": {"type": "number"},
        "entrypointResources": STRING,
    }
)


def _resource(spec: dict[str, Any]) -> dict[str, Any]:
    return closed(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": STRING,
            "metadata": kubernetes("ObjectMeta"),
            "spec": spec,
        },
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    )


RESOURCES = {
    "RayCluster": _resource(CLUSTER_SPEC),
    "RayJob": _resource(JOB_SPEC),
    "RayCronJob": _resource(
        closed(
            {
                "schedule": CRON,
                "timeZone": STRING,
                "suspend": BOOLEAN,
                "jobTemplate": JOB_SPEC,
            },
            "schedule",
            "jobTemplate",
        )
    ),
}
