"""Jobs of Kubeflow Trainer (2.1 or newer) in this pod's namespace: manifest, calls, and their errors in words."""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.errors import PemtError

API = ("trainer.kubeflow.org", "v1alpha1")
RULES = "trainjobs.trainer.kubeflow.org: create, list, delete; pods: list; pods/log, persistentvolumeclaims: get"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TORCHRUN = "torch/distributed/elastic"  # in a log, where torchrun begins to report how its processes ended


class TrainerJobError(PemtError):
    """The job cannot be started or watched, or has failed."""


class Jobs:
    """The calls of the Kubernetes API for jobs in this pod's namespace."""

    def __init__(self) -> None:
        from kubernetes import client, config
        from urllib3 import Retry

        settings = client.Configuration()
        settings.retries = Retry(9, backoff_factor=1, backoff_max=60, status_forcelist=(429, 500, 502, 503, 504))
        in_pod = NAMESPACE.is_file()
        with named("the cluster"):
            (config.load_incluster_config if in_pod else config.load_kube_config)(client_configuration=settings)
        self.namespace = NAMESPACE.read_text() if in_pod else "default"
        self.where = (*API, self.namespace, "trainjobs")
        api = client.ApiClient(settings)
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def conditions(self, name: str) -> dict[str, str] | None:
        """What holds of a job, with messages: Complete, Failed, Suspended, Deleted. None where there is no such job."""
        with named("TrainJobs"):
            found = self.custom.list_namespaced_custom_object(*self.where, field_selector=f"metadata.name={name}")
        for job in found["items"]:
            deleted = {"Deleted": ""} if "deletionTimestamp" in job["metadata"] else {}
            listed = job.get("status", {}).get("conditions", [])
            return deleted | {one["type"]: one["message"] for one in listed if one["status"] == "True"}
        return None

    def create(self, forms: list[dict[str, Any]], claim: str) -> None:
        """The first of `forms` without a field that the cluster's release of Trainer does not know."""
        from kubernetes.client import ApiException

        with named(f"PersistentVolumeClaim {claim}"):  # pods would wait for it without end
            self.core.read_namespaced_persistent_volume_claim(claim, self.namespace)
        with named(f"TrainJob {forms[0]['metadata']['name']}"):
            for form in forms:
                try:
                    self.custom.create_namespaced_custom_object(*self.where, form, field_validation="Strict")
                    return
                except ApiException as error:
                    if form is forms[-1] or "unknown field" not in str(error.body):
                        raise

    def delete(self, name: str) -> None:
        """Remove the job, if it is there, and its pods."""
        if self.conditions(name) is not None:
            with named(f"TrainJob {name}"):
                self.custom.delete_namespaced_custom_object(*self.where, name)

    def pods(self, name: str) -> list[Any]:
        """The pods of a job."""
        with named(f"the pods of {name}"):
            selector = f"jobset.sigs.k8s.io/jobset-name={name}"
            return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def last_words(self, name: str) -> str:
        """Why the pod that failed first did: its termination message, or the end of its log."""
        all_of = [(pod.metadata.name, one) for pod in self.pods(name) for one in pod.status.container_statuses or []]
        ends = [(pod, end) for pod, one in all_of if (end := one.state.terminated or one.last_state.terminated)]
        ends = [(pod, end) for pod, end in ends if end.exit_code]
        if not ends:
            return "no pod is left to tell why"
        pod, ended = min(ends, key=lambda end: end[1].finished_at)
        with named(f"the log of {pod}"):
            text = ended.message or self.core.read_namespaced_pod_log(pod, self.namespace, container="node")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        report = next((n for n, line in enumerate(lines) if TORCHRUN in line), len(lines))
        return f"{pod} ({ended.reason}, exit code {ended.exit_code}): {' | '.join(lines[:report][-3:])}"


@contextmanager
def named(what: str) -> Iterator[None]:
    """Errors of the Kubernetes API about `what` as TrainerJobError, which says what to mend."""
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (config.ConfigException, HTTPError) as error:
        raise TrainerJobError(f"{what}: no answer from the Kubernetes API: {error}") from error
    except client.ApiException as error:
        body = str(error.body).strip()
        said = json.loads(body)["message"] if body.startswith("{") else body
        if error.status == 404 and "page not found" in said:
            said = f"the cluster has no {'/'.join(API)}: Kubeflow Trainer 2 is not installed there"
        elif error.status == 403 and "cannot" in said:
            said += f"; the step's service account needs a Role with {RULES}"
        raise TrainerJobError(f"{what}: {said}") from error


def phase(pod: Any) -> str:
    """What a pod does, and why it waits where it does."""
    waiting = [status.state.waiting.reason for status in pod.status.container_statuses or [] if status.state.waiting]
    waiting += [c.message for c in pod.status.conditions or [] if c.type == "PodScheduled" and c.status == "False"]
    return f"{pod.status.phase} ({waiting[0]})" if waiting else str(pod.status.phase)


def manifests(name: str, arguments: argparse.Namespace, words: list[str]) -> list[dict[str, Any]]:
    """The job as Trainer 2.2 and newer take it, and as 2.1 does."""
    gpus = {arguments.gpu_resource: str(arguments.processes_per_node)} if arguments.gpu_resource else {}
    resources = {"cpu": arguments.cpu, "memory": arguments.memory} | gpus
    secret = {"name": arguments.secret, "optional": True}
    env = [{"name": key, "valueFrom": {"secretKeyRef": {**secret, "key": key}}} for key in arguments.secret_keys]
    trainer = {
        "image": arguments.image,
        "command": ["torchrun", "--module", f"components.{arguments.step}"],
        "args": words,
        "env": env if gpus else [*env, {"name": "ACCELERATE_USE_CPU", "value": "true"}],
        "numNodes": arguments.nodes,
        "numProcPerNode": arguments.processes_per_node,
        "resourcesPerNode": {"requests": resources, "limits": resources},
    }
    claim = {"name": "pemt", "persistentVolumeClaim": {"claimName": arguments.claim}}
    shm = {"name": "shm", "emptyDir": {"medium": "Memory"}}  # 64 MiB without it: NCCL takes more
    mounts = [{"name": "pemt", "mountPath": str(arguments.volume)}, {"name": "shm", "mountPath": "/dev/shm"}]
    labels = {"sidecar.istio.io/inject": "false"}  # a mesh cuts the nodes' own connections
    pod_spec = {**arguments.pod, "volumes": [claim, shm], "containers": [{"name": "node", "volumeMounts": mounts}]}
    pod = {"metadata": {"labels": labels}, "spec": pod_spec}
    template = {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": pod}}}]}}
    ways = {
        "runtimePatches": [{"manager": "pemt-pipeline", "trainingRuntimeSpec": {"template": template}}],
        "podTemplateOverrides": [{"targetJobs": [{"name": "node"}], **pod}],
    }
    pod_name, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")  # a deleted run's pods take it along
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": uid}] if uid else []
    head = {"apiVersion": "/".join(API), "kind": "TrainJob", "metadata": {"name": name, "ownerReferences": owners}}
    spec = {"runtimeRef": {"name": arguments.runtime}, "trainer": trainer}
    return [{**head, "spec": {**spec, key: value}} for key, value in ways.items()]
