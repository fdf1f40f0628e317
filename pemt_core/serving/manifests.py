"""The server on Kubernetes: a Deployment with its Service, and an InferenceService of KServe."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import SettingsError
from pemt_core.serving.ending import LEAVING_SECONDS, POD_SECONDS
from pemt_core.serving.wanted import Wanted
from pemt_core.settings import KubeflowSettings, Resources

NAME, PORT = "pemt-serve", 8080
VOLUME = "/pemt"  # where a claim is mounted
NEEDED = ("MLFLOW_TRACKING_URI",)  # keys of the Secret that become environment variables
IF_THERE = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Place:
    """Where and how the server runs."""

    kubeflow: KubeflowSettings
    image: str
    program: str  # the module that the command `pemt serve` runs
    resources: Resources
    flags: Sequence[str] = ()  # of the program, besides what it serves and where it listens
    replicas: int = 2


def write_manifests(folder: Path, wanted: Wanted, place: Place) -> list[Path]:
    """Write one file per resource, and return their paths.

    Raises SettingsError if no Secret is named: only from one does a container learn where the models are.
    """
    if not place.kubeflow.secret:
        raise SettingsError(
            "kubeflow.secret is empty, so the server's container would not find its models: set it to a Secret with "
            f"{' and '.join(NEEDED)}"
        )
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": _label(wanted.experiment)}
    resources = {
        "deployment.yaml": _deployment(wanted, place, labels),
        "service.yaml": _service(labels),
        "inferenceservice.yaml": _inference_service(wanted, place, labels),
    }
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    for name, resource in resources.items():
        with atomic_file(folder / name) as temporary, temporary.open("w", encoding="utf-8") as file:
            yaml.dump(resource, file)
    return [folder / name for name in resources]


def _label(name: str) -> str:
    """A name as a label of Kubernetes: up to 63 characters, marks only between others."""
    return re.sub("[^A-Za-z0-9_.-]+", "-", name)[:63].strip("-_.")


def _deployment(wanted: Wanted, place: Place, labels: dict[str, str]) -> dict[str, Any]:
    leaving = {"preStop": {"exec": {"command": ["sleep", str(LEAVING_SECONDS)]}}}
    container = {**_container("server", wanted, place), "lifecycle": leaving}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
    pod = {**_pod(place, container), "terminationGracePeriodSeconds": POD_SECONDS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": place.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels, "annotations": scraped}, "spec": pod},
        },
    }


def _service(labels: dict[str, str]) -> dict[str, Any]:
    port = {"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}
    metadata = {"name": NAME, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": [port]}}


def _inference_service(wanted: Wanted, place: Place, labels: dict[str, str]) -> dict[str, Any]:
    """A custom predictor, whose container KServe knows by its name."""
    pod = _pod(place, _container("kserve-container", wanted, place))
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"predictor": {"minReplicas": 1, "maxReplicas": place.replicas, **pod}},
    }


def _pod(place: Place, container: dict[str, Any]) -> dict[str, Any]:
    resources, claim = place.resources, place.kubeflow.volume
    tolerations = [{k: word for k, word in one.model_dump().items() if word} for one in resources.tolerations]
    volumes = [{"name": "pemt", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}] if claim else []
    parts: dict[str, Any] = {
        "nodeSelector": resources.node_selector,
        "tolerations": tolerations,
        "volumes": volumes,
    }
    return {"containers": [container], **{name: value for name, value in parts.items() if value}}


def _container(name: str, wanted: Wanted, place: Place) -> dict[str, Any]:
    resources, kubeflow = place.resources, place.kubeflow
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    amounts |= {kubeflow.gpu_resource: str(resources.gpus)} if resources.gpus else {}
    backbone = ["--backbone", str(wanted.backbone_dir)] if wanted.backbone_dir else []
    mounts = [{"name": "pemt", "mountPath": VOLUME, "readOnly": True}] if kubeflow.volume else []
    return {
        "name": name,
        "image": place.image,
        "command": ["python", "-m", place.program],
        "args": [
            *wanted.targets, "--experiment", wanted.experiment, "--alias", wanted.alias, *backbone,
            "--host", "0.0.0.0", "--port", str(PORT), *place.flags,
        ],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "env": _variables(kubeflow.secret),
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "readinessProbe": _probe("/ready", period=2, failures=2),
        "livenessProbe": {**_probe("/health", period=10, failures=6), "initialDelaySeconds": 30},
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
        **({"volumeMounts": mounts} if mounts else {}),
    }  # fmt: skip


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    get = {"path": path, "port": PORT}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures}


def _variables(secret: str) -> list[dict[str, Any]]:
    keys: Sequence[tuple[str, bool]] = [*((key, False) for key in NEEDED), *((key, True) for key in IF_THERE)]
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, **({"optional": True} if rare else {})}},
        }
        for key, rare in keys
    ]
