"""Steps as jobs of Kubeflow Trainer: a local cluster API that really runs the pods."""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client import (
    V1ContainerState,
    V1ContainerStateWaiting,
    V1ContainerStatus,
    V1Pod,
    V1PodCondition,
    V1PodStatus,
)
from kubernetes_server import Cluster, serve, wait_for
from ruamel.yaml import YAML
from source_code import REPOSITORY
from test_training import CELL, close_adapters
from tiny import World, source_settings, transfer_text

from pemt_core.settings.steps import TrainSource, as_text

CHANGES: dict[str, Any] = {"batch_size": 8, "epochs": 2, "init": "kaiming"}

# Stand-in for a training: waits until the file named by --settings exists, then writes the outputs of a step
STAND_IN = """
import json, pathlib, sys, time
flag = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert pathlib.Path(flag["--data"], "train.parquet").is_file() and pathlib.Path(flag["--backbone"]).is_dir()
while not pathlib.Path(flag["--settings"]).exists():
    time.sleep(0.05)
pathlib.Path(flag["--output"]).mkdir(parents=True, exist_ok=True)
pathlib.Path(flag["--output"], "adapter.json").write_text("{}")
pathlib.Path(flag["--provenance"]).write_text("{}")
answer = {"artifacts": {}, "parameterValues": {"steps": 3}}
pathlib.Path(json.loads(flag["--executor-input"])["outputs"]["outputFile"]).write_text(json.dumps(answer))
"""


@dataclass
class Step:
    """A pipeline step as Kubeflow passes it to a container: artifacts in a store, and a volume."""

    folder: Path
    cluster: Cluster
    kubeconfig: Path

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def answer(self) -> Path:
        return self.folder / "run" / "answer.json"

    def artifact(self, name: str) -> Path:
        return self.folder / "run" / name

    def command(
        self, step: str, world: World, *flags: object, outputs: tuple[str, ...], **changes: object
    ) -> list[str]:
        artifacts = {name: self._listed(name, self.artifact(name)) for name in (*outputs, "provenance")}
        inputs = {name: self._listed(name, world.folder / name) for name in ("data", "backbone", "experts")}
        given = {"inputs": {"artifacts": inputs}, "outputs": {"outputFile": str(self.answer), "artifacts": artifacts}}
        options: dict[str, object] = {
            "step": step,
            "nodes": 2,
            "processes-per-node": 1,
            "image": "registry/pemt:1",
            "cpu": "1",
            "memory": "2Gi",
            "claim": "shared",
            "volume": self.volume,
            "poll-seconds": 0.1,
            "executor-input": json.dumps(given),
            **changes,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "components.trainer_job", *words, "--", *map(str, flags)]

    def train_source(self, world: World, settings: object = "{}", **changes: object) -> list[str]:
        data = ["--data", world.folder / "data" / "alpha", "--backbone", world.folder / "backbone"]
        out = ["--output", self.artifact("adapter"), "--provenance", self.artifact("provenance")]
        rest = ["--checkpoints", self.volume / "checkpoints", "--processes", 2]
        given = ["--settings", settings, "--tracking", tracking_text(self.folder / "other.db")]
        return self.command("train_source", world, *given, *data, *out, *rest, outputs=("adapter",), **changes)

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, command: list[str]) -> tuple[int, list[str]]:
        """Run a command; return its exit code and the lines that it printed."""
        return ended(self.start(command))

    def _listed(self, name: str, path: Path) -> dict[str, Any]:
        return {"artifacts": [{"name": name, "uri": str(path), "metadata": {}}]}


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    output, errors = process.communicate(timeout=240)
    assert output == ""
    assert "Traceback" not in errors
    return process.returncode, errors.strip().splitlines()


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Step]:
    cluster = Cluster(tmp_path)
    (tmp_path / "volume").mkdir()
    with serve(cluster) as kubeconfig:
        yield Step(tmp_path, cluster, kubeconfig)


@pytest.fixture
def stand_in(step: Step) -> Step:
    """A step whose pods wait for the file named by the settings instead of training."""
    step.cluster.instead = [sys.executable, "-c", STAND_IN]
    return step


def tracking_text(database: Path) -> str:
    return json.dumps({"uri": f"sqlite:///{database}", "experiment": "tiny", "on_unreachable": "stop"})


def waiting(reason: str) -> V1ContainerStatus:
    state = V1ContainerState(waiting=V1ContainerStateWaiting(reason=reason))
    return V1ContainerStatus(name="node", image="", image_id="", ready=False, restart_count=0, state=state)


# --- real trainings on two nodes


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerator")
def test_two_nodes_train_what_one_process_trains(step: Step, still_world: World, tmp_path: Path) -> None:
    still_world.train_source(tmp_path / "one" / "out", **CHANGES)
    step.cluster.secret = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    settings = TrainSource(source="alpha", train_source=source_settings(**CHANGES), answer="generate", code="")
    command = step.train_source(still_world, as_text(settings), secret="s")
    command[command.index("--") : command.index("--")] = ["--secret-keys", "MLFLOW_TRACKING_URI", "HF_TOKEN"]
    code, lines = step.run(command)
    assert code == 0, lines
    close_adapters(tmp_path / "one" / "out", step.artifact("adapter"))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchall() == [
            (1,)
        ]  # two independent processes would give 2
    assert not (tmp_path / "other.db").exists()
    answer = json.loads(step.answer.read_text())
    assert sorted(answer["artifacts"]) == ["adapter", "provenance"]
    assert answer["artifacts"]["adapter"]["artifacts"][0]["uri"] == str(step.artifact("adapter"))
    assert json.loads(step.artifact("provenance").read_text())["versions"]
    assert lines[-1].split(" after ")[0].endswith(": Complete")
    assert any("2 Running" in line for line in lines)
    assert step.cluster.jobs == {}
    assert list((step.volume / "jobs").iterdir()) == []


@pytest.mark.slow
def test_two_nodes_transfer(step: Step, world: World, tmp_path: Path) -> None:
    data = ["--data", world.folder / "data", "--backbone", world.folder / "backbone"]
    inputs = [*data, "--experts", world.folder / "experts", "--checkpoints", step.volume / "checkpoints"]
    outputs = ["--output", step.artifact("adapters"), "--provenance", step.artifact("provenance")]
    given = ["--settings", transfer_text(), "--tracking", tracking_text(tmp_path / "mlflow.db")]
    flags = [*given, "--plan", "key", *inputs, *outputs]
    code, lines = step.run(step.command("transfer", world, *flags, outputs=("adapters",)))
    assert code == 0, lines
    assert (step.artifact("adapters") / World.TARGET / CELL / "adapter.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [False, True])
def test_a_failed_step_gives_the_reason_in_the_last_line(step: Step, world: World, restarts: bool) -> None:
    """An error of the step ends the job at once, even where a Job would restart its pods."""
    step.cluster.restarts = restarts
    code, lines = step.run(step.train_source(world, '{"train_source": {}}'))
    assert code == 1
    assert lines[-1].startswith("error: the settings of train_source: ")
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert step.answer.with_name("error.txt").read_text() == lines[-1].removeprefix("error: ") + "\n"
    assert step.cluster.jobs == {}
    assert list((step.volume / "jobs").iterdir()) == []


@pytest.mark.slow
def test_a_crash_shows_the_end_of_the_log(step: Step, world: World) -> None:
    command = ["no_such_step" if word == "train_source" else word for word in step.train_source(world)]
    code, lines = step.run(command)
    assert code == 1
    assert "jobset failed due to one or more job failures; pemt-no-such-step-" in lines[-1]
    assert lines[-1].endswith("No module named components.no_such_step")
    assert len(step.cluster.jobs) == 1  # the job is kept for inspection


# --- retries, stops and cluster errors


def test_a_retry_finds_the_running_job(stand_in: Step, world: World, tmp_path: Path) -> None:
    command = stand_in.train_source(world, tmp_path / "go")
    first = stand_in.start(command)
    wait_for(lambda: stand_in.cluster.jobs)
    first.kill()
    first.communicate()
    second = stand_in.start(command)
    wait_for(lambda: any("2 Running" in line for line in lines_so_far(second, 2)))
    (tmp_path / "go").touch()
    code, lines = ended(second)
    assert code == 0, lines
    assert sum(request.startswith("create") for request in stand_in.cluster.requests) == 1
    assert json.loads(stand_in.answer.read_text())["parameterValues"] == {"steps": 3}
    assert stand_in.artifact("adapter").joinpath("adapter.json").read_text() == "{}"


def lines_so_far(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stderr
    return [process.stderr.readline() for _ in range(count)]


def test_other_settings_start_another_job(stand_in: Step, world: World, tmp_path: Path) -> None:
    commands = [stand_in.train_source(world, tmp_path / name) for name in ("one", "two")]
    processes = [stand_in.start(command) for command in commands]
    wait_for(lambda: len(stand_in.cluster.jobs) == 2)
    for process in processes:
        process.terminate()
        assert ended(process)[0] == 143


def test_a_retry_after_a_failed_job_starts_it_again(stand_in: Step, world: World, tmp_path: Path) -> None:
    stand_in.cluster.instead = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    command = stand_in.train_source(world, tmp_path / "go")
    code, lines = stand_in.run(command)
    assert code == 1
    assert "(OOMKilled, exit code 137)" in lines[-1]
    stand_in.cluster.instead = [sys.executable, "-c", STAND_IN]
    (tmp_path / "go").touch()
    code, lines = stand_in.run(command)
    assert code == 0, lines
    assert not stand_in.answer.with_name("error.txt").exists()


def test_stopping_a_step_deletes_its_job(stand_in: Step, world: World, tmp_path: Path) -> None:
    process = stand_in.start(stand_in.train_source(world, tmp_path / "never"))
    wait_for(lambda: stand_in.cluster.jobs)
    (job,) = stand_in.cluster.jobs.values()
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    assert stand_in.cluster.jobs == {}
    assert [pod.process.poll() for pod in job.pods] == [-signal.SIGTERM] * 2
    assert list((stand_in.volume / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"release": ""}, "Kubeflow Trainer 2 is not installed"),
        ({"forbidden": "list"}, "needs a Role with trainjobs.trainer.kubeflow.org: create, list, delete; pods: list;"),
        ({"forbidden": "create"}, 'pipeline-runner" cannot create resource'),
        ({"claims": set()}, 'PersistentVolumeClaim shared: persistentvolumeclaims "shared" not found'),
    ],
)
def test_missing_parts_of_the_cluster_are_named(step: Step, world: World, cluster: dict[str, Any], words: str) -> None:
    for name, value in cluster.items():
        setattr(step.cluster, name, value)
    code, lines = step.run(step.train_source(world))
    assert code == 1
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]
    assert not step.answer.exists()


def test_a_missing_cluster_is_explained(step: Step, world: World) -> None:
    step.kubeconfig = step.folder / "missing"
    code, lines = step.run(step.train_source(world))
    assert code == 1
    assert lines[-1].startswith("error: the cluster: no answer from the Kubernetes API: Invalid kube-config file")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Running"}, "Running"),
        ({"phase": "Pending", "conditions": [V1PodCondition(type="PodScheduled", status="True")]}, "Pending"),
        (
            {"phase": "Pending", "conditions": [V1PodCondition(type="PodScheduled", status="False", message="no GPU")]},
            "Pending (no GPU)",
        ),
        (
            {"phase": "Pending", "container_statuses": [waiting("ImagePullBackOff")]},
            "Pending (ImagePullBackOff)",
        ),
    ],
)
def test_progress_shows_why_a_pod_waits(status: dict[str, Any], words: str) -> None:
    from components.trainer_api import phase

    assert phase(V1Pod(status=V1PodStatus(**status))) == words


# --- the manifest


@pytest.mark.parametrize("release", ["2.3", "2.1"])
def test_the_job_has_the_release_of_the_cluster(stand_in: Step, world: World, tmp_path: Path, release: str) -> None:
    stand_in.cluster.release = release
    (tmp_path / "go").touch()
    process = stand_in.start(stand_in.train_source(world, tmp_path / "go", **{"gpu-resource": "nvidia.com/gpu"}))
    wait_for(lambda: stand_in.cluster.jobs)
    (job,) = stand_in.cluster.jobs.values()
    assert ended(process)[0] == 0
    spec = job.manifest["spec"]
    assert spec["trainer"]["resourcesPerNode"]["limits"] == {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"}
    assert spec["trainer"]["env"] == []
    if release == "2.1":
        (pod,) = spec["podTemplateOverrides"]
    else:
        (patch,) = spec["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pod = replicated["template"]["spec"]["template"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == str(stand_in.volume)


MANIFEST = """
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: pemt-transfer-1
  ownerReferences: [{apiVersion: v1, kind: Pod, name: a-pod, uid: an-id}]
spec:
  runtimeRef: {name: torch-distributed}
  trainer:
    image: registry/pemt:1
    command: [torchrun, --module, components.transfer]
    args: [--k, v]
    env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: pemt-tracking, key: HF_TOKEN, optional: true}}}]
    numNodes: 2
    numProcPerNode: 4
    resourcesPerNode:
      requests: {cpu: "8", memory: 32Gi, nvidia.com/gpu: "4"}
      limits: {cpu: "8", memory: 32Gi, nvidia.com/gpu: "4"}
"""
POD = """
metadata: {labels: {sidecar.istio.io/inject: "false"}}
spec:
  nodeSelector: {pool: gpu}
  tolerations: [{key: gpu, operator: Exists}]
  containers: [{name: node, volumeMounts: [{name: pemt, mountPath: /pemt}, {name: shm, mountPath: /dev/shm}]}]
  volumes:
    - {name: pemt, persistentVolumeClaim: {claimName: shared}}
    - {name: shm, emptyDir: {medium: Memory}}
"""


def job_arguments(pod: dict[str, Any]) -> argparse.Namespace:
    from components.trainer_job import make_parser

    text = """
        --step transfer --nodes 2 --processes-per-node 4 --gpu-resource nvidia.com/gpu --image registry/pemt:1 --cpu 8
        --memory 32Gi --claim shared --volume /pemt --secret pemt-tracking --secret-keys HF_TOKEN --executor-input {}
    """
    return make_parser().parse_args([*textwrap.dedent(text).split(), "--pod", json.dumps(pod), "--", "--k", "v"])


def test_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest equals an example written after Trainer's documentation, and its pod fits Kubernetes' schema."""
    from components.trainer_manifest import manifests

    monkeypatch.setenv("KFP_POD_NAME", "a-pod")
    monkeypatch.setenv("KFP_POD_UID", "an-id")
    job, pod = (YAML(typ="safe").load(text) for text in (MANIFEST, POD))
    nodes = {"name": "node", "template": {"spec": {"template": pod}}}
    patch = {"template": {"spec": {"replicatedJobs": [nodes]}}}
    newer = {"runtimePatches": [{"manager": "pemt-pipeline", "trainingRuntimeSpec": patch}]}
    older = {"podTemplateOverrides": [{"targetJobs": [{"name": "node"}], **pod}]}
    chosen = {key: pod["spec"][key] for key in ("nodeSelector", "tolerations")}
    built = manifests("pemt-transfer-1", job_arguments(chosen), ["--k", "v"])
    assert built == [{**job, "spec": {**job["spec"], **fields}} for fields in (newer, older)]
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, "1.31", strict=True)


@pytest.mark.parametrize("pod", [{"nodeSelectors": {}}, {"tolerations": [{"keys": "gpu"}]}, {"nodeSelector": {"a": 1}}])
def test_a_pod_that_trainer_cannot_patch(pod: dict[str, Any]) -> None:
    from components.trainer_api import TrainerJobError
    from components.trainer_manifest import manifests

    with pytest.raises(TrainerJobError, match=r"^--pod is "):
        manifests("job", job_arguments(pod), [])
