"""TrainJobs of Kubeflow Trainer (2.1 or newer) in this pod's namespace, through the Kubernetes API."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.errors import PemtError

API = ("trainer.kubeflow.org", "v1alpha1")
RULES = "trainjobs.trainer.kubeflow.org: create, list, delete; pods: list; pods/log, persistentvolumeclaims: get"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NODE = "node"  # what Trainer's runtimes call the job of the nodes, and its container
TORCHRUN = "torch/distributed/elastic"  # in the first line of torchrun's failure report


class TrainerJobError(PemtError):
    """A job cannot be started or watched, or it failed."""


class Jobs:
    """The TrainJobs of this pod's namespace."""

    def __init__(self) -> None:
        from kubernetes import client, config
        from urllib3 import Retry

        settings = client.Configuration()
        settings.retries = Retry(9, backoff_factor=1, backoff_max=60, status_forcelist=(429, 500, 502, 503, 504))
        in_pod = NAMESPACE.is_file()
        with api_errors("the cluster"):
            (config.load_incluster_config if in_pod else config.load_kube_config)(client_configuration=settings)
        self.namespace = NAMESPACE.read_text() if in_pod else "default"
        self.collection = (*API, self.namespace, "trainjobs")
        api = client.ApiClient(settings)
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def conditions(self, name: str) -> dict[str, str] | None:
        """The conditions that are true of a job, with their messages; None if there is no such job.

        Trainer sets Complete, Failed and Suspended; Deleted is added while the job is being deleted.
        """
        with api_errors("TrainJobs"):
            found = self.custom.list_namespaced_custom_object(*self.collection, field_selector=f"metadata.name={name}")
        for job in found["items"]:
            deleted = {"Deleted": ""} if "deletionTimestamp" in job["metadata"] else {}
            listed = job.get("status", {}).get("conditions", [])
            return deleted | {one["type"]: one["message"] for one in listed if one["status"] == "True"}
        return None

    def create(self, versions: list[dict[str, Any]], claim: str) -> None:
        """Create the job from the first of `versions` whose fields the cluster's release of Trainer knows."""
        from kubernetes.client import ApiException

        with api_errors(f"PersistentVolumeClaim {claim}"):  # without it, the pods would wait forever
            self.core.read_namespaced_persistent_volume_claim(claim, self.namespace)
        with api_errors(f"TrainJob {versions[0]['metadata']['name']}"):
            for manifest in versions:
                try:
                    self.custom.create_namespaced_custom_object(*self.collection, manifest, field_validation="Strict")
                    return
                except ApiException as error:
                    if manifest is versions[-1] or "unknown field" not in str(error.body):
                        raise

    def delete(self, name: str) -> None:
        """Delete the job and its pods, if it exists."""
        if self.conditions(name) is not None:
            with api_errors(f"TrainJob {name}"):
                self.custom.delete_namespaced_custom_object(*self.collection, name)

    def pods(self, name: str) -> list[Any]:
        """The pods of a job."""
        with api_errors(f"the pods of {name}"):
            selector = f"jobset.sigs.k8s.io/jobset-name={name}"
            return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def first_failure(self, name: str) -> str:
        """Why the first failed pod failed: its termination message, or else the end of its log."""
        containers = [(pod.metadata.name, s) for pod in self.pods(name) for s in pod.status.container_statuses or []]
        ends = [(pod, end) for pod, s in containers if (end := s.state.terminated or s.last_state.terminated)]
        failures = [(pod, end) for pod, end in ends if end.exit_code]
        if not failures:
            return "its pods are gone, and their logs with them"
        pod, first = min(failures, key=lambda failure: failure[1].finished_at)
        with api_errors(f"the log of {pod}"):
            text = first.message or self.core.read_namespaced_pod_log(pod, self.namespace, container=NODE)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        report = next((number for number, line in enumerate(lines) if TORCHRUN in line), len(lines))
        return f"{pod} ({first.reason}, exit code {first.exit_code}): {' | '.join(lines[:report][-3:])}"


@contextmanager
def api_errors(what: str) -> Iterator[None]:
    """Turn errors of the Kubernetes API about `what` into a TrainerJobError that says what to fix."""
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (config.ConfigException, HTTPError) as error:
        raise TrainerJobError(f"{what}: no answer from the Kubernetes API: {error}") from error
    except client.ApiException as error:
        body = str(error.body).strip()
        message = json.loads(body)["message"] if body.startswith("{") else body
        if error.status == 404 and "page not found" in message:
            message = f"the cluster has no {'/'.join(API)}: Kubeflow Trainer 2 is not installed there"
        elif error.status == 403 and "cannot" in message:
            message += f"; the step's service account needs a Role with {RULES}"
        raise TrainerJobError(f"{what}: {message}") from error


def phase(pod: Any) -> str:
    """A pod's phase, and in brackets what it waits for, if anything."""
    reasons = [status.state.waiting.reason for status in pod.status.container_statuses or [] if status.state.waiting]
    reasons += [c.message for c in pod.status.conditions or [] if c.type == "PodScheduled" and c.status == "False"]
    return f"{pod.status.phase} ({reasons[0]})" if reasons else str(pod.status.phase)
