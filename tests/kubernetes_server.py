"""A local cluster: the part of the Kubernetes API that a job uses, and what Kubeflow Trainer does behind it.

Creating a TrainJob runs one process for each node, with the command, arguments and variables of the manifest and the
variables that the torch runtime adds. Conditions and messages are those of Trainer and JobSet.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from source_code import REPOSITORY

NAMESPACE = "default"
JOBS = re.compile(rf"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs(?:/([^/]+))?")
CORE = re.compile(rf"/api/v1/namespaces/{NAMESPACE}/(pods|persistentvolumeclaims)(?:/([^/]+))?(/log)?")
FIELDS = {  # fields of a TrainJob's spec, by release
    "2.3": {"runtimeRef", "trainer", "runtimePatches", "suspend", "initializer", "managedBy", "activeDeadlineSeconds"},
    "2.1": {"runtimeRef", "trainer", "podTemplateOverrides", "suspend", "initializer", "managedBy", "labels"},
}


@dataclass
class Pod:
    """One node of a job: a process and its output."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    finished: str | None = None

    def status(self, *, restarts: bool) -> dict[str, Any]:
        """The status as the kubelet reports it; a failed pod waits for its restart if the job restarts pods."""
        code = self.process.poll()
        if code is None:
            return {"phase": "Running", "containerStatuses": [self._container({"running": {}})]}
        self.finished = self.finished or _now()
        reason = {0: "Completed", -signal.SIGKILL: "OOMKilled"}.get(code, "Error")
        exit_code = 128 - code if code < 0 else code
        ended = {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": self.finished}}
        if code and restarts:
            waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
            return {"phase": "Running", "containerStatuses": [self._container(waiting, lastState=ended)]}
        phase = "Failed" if code else "Succeeded"
        return {"phase": phase, "containerStatuses": [self._container(ended)]}

    def _container(self, state: dict[str, Any], **others: Any) -> dict[str, Any]:
        start = {"name": "node", "image": "", "imageID": "", "ready": True, "restartCount": 0}
        return {**start, "state": state, "lastState": {}, **others}


@dataclass
class Job:
    """A TrainJob and its pods."""

    manifest: dict[str, Any]
    pods: list[Pod] = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)

    def update(self, *, restarts: bool) -> None:
        """Set the condition that follows from the processes' exits; the first failure stops the others."""
        codes = [pod.process.poll() for pod in self.pods]
        if self.conditions or not self.pods:
            return
        if all(code == 0 for code in codes):
            self._end("Complete", "AllJobsCompleted", "jobset completed successfully")
        elif any(codes) and not restarts:
            for pod in self.pods:
                pod.status(restarts=False)  # records when it ended
            self.stop()
            self._end("Failed", "FailedJobs", "jobset failed due to one or more job failures")

    def stop(self) -> None:
        """Stop all processes."""
        for pod in self.pods:
            if pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGTERM)
        for pod in self.pods:
            pod.process.wait(20)

    def _end(self, kind: str, reason: str, message: str) -> None:
        words = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.conditions.append({**words, "lastTransitionTime": _now()})


@dataclass
class Cluster:
    """The cluster's state, its behaviour, and every request it received."""

    folder: Path
    release: str = "2.3"  # of Kubeflow Trainer; "" if not installed
    claims: set[str] = field(default_factory=lambda: {"shared"})
    secret: dict[str, str] = field(default_factory=dict)
    forbidden: str = ""  # a verb that no role permits
    restarts: bool = False  # restart failed pods; a real Job does so six times before it fails
    instead: Sequence[str] = ()  # runs instead of the manifest's command
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def start(self, manifest: dict[str, Any]) -> Job:
        """Run the pods of a TrainJob."""
        trainer, name = manifest["spec"]["trainer"], manifest["metadata"]["name"]
        port, job = _free_port(), Job(manifest)
        for rank in range(trainer["numNodes"]):
            torch_runtime = {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            variables = {entry["name"]: self._value(entry) for entry in trainer["env"]}
            given = {name: value for name, value in variables.items() if value is not None}
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            log = self.folder / f"{name}-node-0-{rank}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [*(self.instead or trainer["command"]), *trainer["args"]],
                    env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **given, **torch_runtime},
                    cwd=REPOSITORY,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            job.pods.append(Pod(log.stem, log, process))
        self.jobs[name] = job
        return job

    def _value(self, entry: dict[str, Any]) -> str | None:
        if "valueFrom" in entry:
            return self.secret.get(entry["valueFrom"]["secretKeyRef"]["key"])
        return str(entry["value"])


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the Kubernetes client with objects or a Status."""

    cluster: Cluster

    def do_GET(self) -> None:
        """Answer requests for jobs by name, pods by label, a pod's log, or a claim."""
        url, cluster = urlsplit(self.path), self.cluster
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if self._refused("get" if "Selector" not in url.query else "list"):
            return
        if JOBS.fullmatch(url.path):
            requested = query["fieldSelector"].removeprefix("metadata.name=")
            self._answer(200, {"items": [self._job(job) for name, job in cluster.jobs.items() if name == requested]})
            return
        kind, name, log = CORE.fullmatch(url.path).groups()  # type: ignore[union-attr]
        pods = {pod.name: pod for job in cluster.jobs.values() for pod in job.pods}
        if log:
            self._send(200, "text/plain", pods[name].log.read_bytes())
        elif kind == "pods":
            job = cluster.jobs.get(query["labelSelector"].removeprefix("jobset.sigs.k8s.io/jobset-name="))
            items = [(pod.name, pod.status(restarts=cluster.restarts)) for pod in (job.pods if job else [])]
            self._answer(200, {"items": [{"metadata": {"name": n}, "status": status} for n, status in items]})
        elif name in cluster.claims:
            self._answer(200, {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"]}})
        else:
            self._refuse(404, "NotFound", f'persistentvolumeclaims "{name}" not found')

    def do_POST(self) -> None:
        """Create a TrainJob; its fields are checked as strictly as the client requests."""
        manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused("create"):
            return
        name, unknown = manifest["metadata"]["name"], set(manifest["spec"]) - FIELDS[self.cluster.release]
        if unknown and "fieldValidation=Strict" in self.path:
            fields = ", ".join(f'unknown field "spec.{key}"' for key in sorted(unknown))
            words = 'TrainJob in version "v1alpha1" cannot be handled as a TrainJob: strict decoding error: '
            self._refuse(400, "BadRequest", words + fields)
        elif name in self.cluster.jobs:
            self._refuse(409, "AlreadyExists", f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        else:
            self._answer(201, self._job(self.cluster.start(manifest)))

    def do_DELETE(self) -> None:
        """Delete a TrainJob and its pods."""
        if not self._refused("delete"):
            name = urlsplit(self.path).path.rpartition("/")[2]
            self.cluster.jobs.pop(name).stop()
            self._answer(200, {"kind": "Status", "status": "Success"})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: the requests are kept instead."""

    def _refused(self, verb: str) -> bool:
        """Refuse a request that the cluster cannot serve or does not permit."""
        path = urlsplit(self.path).path
        self.cluster.requests.append(f"{verb} {path}")
        is_job = JOBS.fullmatch(path)
        if is_job and not self.cluster.release:
            self._send(404, "text/plain", b"404 page not found\n")
        elif is_job and verb == self.cluster.forbidden:
            user, resource = 'User "system:serviceaccount:default:pipeline-runner"', 'resource "trainjobs"'
            group = 'in API group "trainer.kubeflow.org" in the namespace "default"'
            words = f"trainjobs.trainer.kubeflow.org is forbidden: {user} cannot {verb} {resource} {group}"
            self._refuse(403, "Forbidden", words)
        else:
            return False
        return True

    def _job(self, job: Job) -> dict[str, Any]:
        job.update(restarts=self.cluster.restarts)
        return {**job.manifest, "status": {"conditions": job.conditions}}

    def _refuse(self, code: int, reason: str, message: str) -> None:
        self._answer(code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code})

    def _answer(self, code: int, value: Any) -> None:
        self._send(code, "application/json", json.dumps(value).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(cluster: Cluster) -> Iterator[Path]:
    """Serve the cluster's API and yield the path of a kubeconfig for it. Jobs that still run are stopped at the end."""
    handler = type("ClusterHandler", (Handler,), {"cluster": cluster})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield _write_kubeconfig(cluster.folder / "kubeconfig", server.server_port)
        finally:
            server.shutdown()
            thread.join()
            for job in cluster.jobs.values():
                job.stop()


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Wait until `condition()` is true; raises AssertionError at the time limit."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def _write_kubeconfig(path: Path, port: int) -> Path:
    """Write a kubeconfig, as JSON, which is valid YAML."""
    clusters = [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}]
    contexts = [{"name": "here", "context": {"cluster": "here", "user": "me"}}]
    users: list[dict[str, Any]] = [{"name": "me", "user": {}}]
    head = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
    path.write_text(json.dumps({**head, "clusters": clusters, "contexts": contexts, "users": users}))
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
