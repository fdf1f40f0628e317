"""The compiled pipeline, compared with the programs, dvc.yaml and the schemas of Kubeflow and Kubernetes."""

import hashlib
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from ruamel.yaml import YAML
from source_code import REPOSITORY
from workspace import Workspace, environment, lay_over, write_params

from components.cli import COMMANDS
from pemt_core.settings import parse_settings, read_params
from pemt_core.settings.groups import STEPS
from pipelines.command import unfit_for_a_cluster
from pipelines.compile import compile_pipeline, version_name

PARAMS = REPOSITORY / "params.yaml"
IMAGE = "registry.local/pemt:0123456789ab"
TRANSFER = {
    "cpu": "1500m",
    "memory": "24Gi",
    "gpus": 4,
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "value": "", "effect": "NoSchedule"}],
}
RETRY = {"times": 3, "seconds": 7, "factor": 1.5}
DEMANDING = {"volume": "claim", "retry": RETRY, "parallelism": 5, "resources": {"transfer": TRANSFER}}
ON_NODES = {"nodes": {"transfer": 2, "train_source": 3}}

Compile = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile params.yaml with changed settings, once each; return the documents of the compiled file.

    kfp looks up its callers among all modules of the process, which here are thousands.
    """
    folder, found = tmp_path_factory.mktemp("compiled"), dict[str, list[Any]]()

    def compile_with(differences: Mapping[str, Any], manifests: KubernetesManifestOptions | None = None) -> list[Any]:
        key = json.dumps([differences, manifests and vars(manifests)])
        if key not in found:
            values = read_params(PARAMS)
            lay_over(values, differences)
            settings = parse_settings(values, "test")
            compile_pipeline(settings, json.dumps(values), IMAGE, folder / "pemt.yaml", manifests=manifests)
            found[key] = list(YAML(typ="safe").load_all(folder / "pemt.yaml"))
        return deepcopy(found[key])

    return compile_with


def containers(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container of each step."""
    executors = document["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-").replace("-", "_"): value["container"] for name, value in executors.items()}


def tasks_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return all tasks of the root and of its groups, by name."""
    dags = [document["root"], *(c for c in document["components"].values() if "dag" in c)]
    return {name: task for component in dags for name, task in component["dag"]["tasks"].items()}


# Comparison with the programs


@pytest.mark.parametrize("step", STEPS)
def test_programs_accept_the_flags_of_their_containers(compiled: Compile, step: str) -> None:
    """The program's parser reads them; it rejects unknown flags, missing flags and values of the wrong type."""
    container = containers(compiled({})[0])[step]
    assert container["command"] == ["python", "-m", f"components.{step}"]
    arguments = [re.sub(r"\{\{\$\.inputs\.parameters\['processes'\]\}\}", "2", word) for word in container["args"]]
    parsed = importlib.import_module(f"components.{step}").make_parser().parse_args(arguments)
    assert parsed.executor_input == "{{$}}"
    given = [word for word in arguments if word.startswith("--")]
    assert len(given) == len(set(given))


def test_every_program_has_a_container_with_resources(compiled: Compile) -> None:
    document, _ = compiled({})
    programs = {path.stem for path in (REPOSITORY / "components").glob("*.py") if "def make_parser" in path.read_text()}
    for_people = {command.module.removeprefix("components.") for command in COMMANDS.values()}
    assert set(containers(document)) == set(STEPS) == programs - {"trainer_job", "cli", "fork_server"} - for_people
    differences = read_params(PARAMS)["kubeflow"]["resources"]
    every_step = differences.pop("every_step")
    assert 0 < len(differences) < len(STEPS)
    for step, container in containers(document).items():
        resources = {**every_step, **differences.get(step, {})}
        assert container["image"] == IMAGE
        assert container["resources"]["resourceCpuLimit"] == resources["cpu"]
        assert container["resources"]["resourceMemoryLimit"] == resources["memory"]


# Comparison with dvc.yaml


def artifact_edges(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return (producer, consumer) of every artifact, across loops and groups."""
    components, edges = document["components"], set()

    def component_of(dag: Mapping[str, Any], task: str) -> tuple[str, Any]:
        name = dag["tasks"][task]["componentRef"]["name"]
        return name.removeprefix("comp-").replace("-", "_"), components[name]

    def producer(dag: Mapping[str, Any], task: str, key: str) -> str:
        step, component = component_of(dag, task)
        if "dag" not in component:
            return step
        (selector,) = component["dag"]["outputs"]["artifacts"][key]["artifactSelectors"]
        return producer(component["dag"], selector["producerSubtask"], selector["outputArtifactKey"])

    def walk(dag: Mapping[str, Any], given: Mapping[str, str]) -> None:
        for task, spec in dag["tasks"].items():
            sources = {}
            for name, source in spec.get("inputs", {}).get("artifacts", {}).items():
                output = source.get("taskOutputArtifact")
                sources[name] = (
                    producer(dag, output["producerTask"], output["outputArtifactKey"])
                    if output
                    else given[source["componentInputArtifact"]]
                )
            step, component = component_of(dag, task)
            if "dag" in component:
                walk(component["dag"], sources)
            else:
                edges.update((source, step) for source in sources.values())

    walk(document["root"]["dag"], {})
    return edges


def dvc_edges() -> set[tuple[str, str]]:
    """Return (producer, consumer) of the stages in dvc.yaml, matched by the paths they write and read."""
    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]

    def path(text: str) -> tuple[str, ...]:
        return tuple("*" if part.startswith("${item.") else part for part in text.split("/"))

    def outs(stage: Any) -> Iterator[tuple[str, ...]]:
        for out in stage["outs"]:
            yield path(next(iter(out)) if isinstance(out, dict) else out)

    def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        return all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=False))

    return {
        (producer, consumer)
        for producer, written in stages.items()
        for consumer, stage in stages.items()
        for out in outs(written)
        for dep in stage["deps"]
        if out[0] != "provenance" and producer != consumer and overlap(out, path(dep))
    }


def test_data_flows_as_in_dvc(compiled: Compile) -> None:
    """The artifacts flow as in dvc.yaml, with two exceptions.

    The plan passes parameters. The exit task records the parent runs; it reads results from the tracking store.
    """
    plan = {("plan", step) for step in STEPS if step != "plan"}
    gathered = {(step, "report") for step in ("backbone", "train_source", "evaluate")} | {("train_source", "record")}
    assert artifact_edges(compiled({})[0]) == dvc_edges() - plan - gathered
    assert plan | gathered <= dvc_edges()


def test_the_plan_runs_first_and_the_report_runs_after_failures(compiled: Compile) -> None:
    document = compiled({})[0]
    root = document["root"]["dag"]["tasks"]
    assert set(root) == {"plan", "exit-handler-1", "report"}
    assert root["exit-handler-1"]["dependentTasks"] == ["plan"]
    assert root["report"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["report"]["dependentTasks"] == ["exit-handler-1"]
    assert "artifacts" not in root["report"]["inputs"]
    loops = {
        name: task["parameterIterator"]["items"]["inputParameter"]
        for name, task in tasks_of(document).items()
        if "parameterIterator" in task
    }
    assert sorted(loops.values()) == ["pipelinechannel--plan-branches", "pipelinechannel--plan-source_trainings"]


# Demands on the cluster in params.yaml


def test_caching_retries_and_parallelism(compiled: Compile) -> None:
    document, _ = compiled({"kubeflow": DEMANDING})
    tasks = tasks_of(document)
    steps = {name.replace("-", "_"): task for name, task in tasks.items() if name.replace("-", "_") in STEPS}
    assert set(steps) == set(STEPS)
    cached = {step for step, task in steps.items() if task["cachingOptions"].get("enableCache")}
    assert cached == set(STEPS) - {"report"}
    for task in steps.values():
        policy = task["retryPolicy"]
        assert (policy["maxRetryCount"], policy["backoffDuration"], policy["backoffFactor"]) == (3, "7s", 1.5)
    limits = [task["iteratorPolicy"]["parallelismLimit"] for task in tasks.values() if "parameterIterator" in task]
    assert limits == [5, 5]


def test_gpus_nodes_secret_and_volume(compiled: Compile) -> None:
    document, platform = compiled({"kubeflow": DEMANDING})
    transfer = containers(document)["transfer"]["resources"]
    assert (transfer["resourceCpuLimit"], transfer["resourceMemoryLimit"]) == ("1500m", "24Gi")
    assert (transfer["accelerator"]["resourceType"], transfer["accelerator"]["resourceCount"]) == (
        "nvidia.com/gpu",
        "4",
    )
    assert tasks_of(document)["transfer"]["inputs"]["parameters"]["processes"] == {"runtimeValue": {"constant": 4.0}}
    assert tasks_of(document)["train-source"]["inputs"]["parameters"]["processes"] == {
        "runtimeValue": {"constant": 1.0}
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-transfer"]["nodeSelector"]["labels"] == {"pool": "gpu"}
    assert executors["exec-transfer"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert "nodeSelector" not in executors["exec-train-source"]
    for step in STEPS:
        of_step = executors[f"exec-{step.replace('_', '-')}"]
        assert [(mount["constant"], mount["mountPath"]) for mount in of_step["pvcMount"]] == [("claim", "/pemt")]
        required, optional = of_step["secretAsEnv"]
        assert (required["secretName"], required["optional"]) == ("pemt-tracking", False)
        assert [key["envVar"] for key in required["keyToEnv"]] == ["MLFLOW_TRACKING_URI"]
        assert optional["optional"] is True


def test_the_settings_fit_into_one_parameter(compiled: Compile) -> None:
    """Kubeflow's API rejects parameters of more than 10,000 bytes in total, according to its source."""
    root = compiled({})[0]["root"]["inputDefinitions"]["parameters"]
    assert len(json.dumps({name: spec["defaultValue"] for name, spec in root.items()}).encode()) < 10_000


def test_a_step_on_several_nodes_starts_a_job_of_the_same_program(compiled: Compile) -> None:
    """After `--` come the arguments of the step's container; the launcher's container requests few resources."""
    plain, nodes = (containers(compiled({"kubeflow": {**DEMANDING, **extra}})[0]) for extra in ({}, ON_NODES))
    launcher = nodes["transfer"]
    assert launcher["command"] == ["python", "-m", "components.trainer_job"]
    parsed = importlib.import_module("components.trainer_job").make_parser().parse_args(launcher["args"])
    assert (parsed.step, parsed.nodes, parsed.processes_per_node) == ("transfer", 2, 4)
    assert (parsed.image, parsed.claim, parsed.cpu, parsed.memory) == (IMAGE, "claim", "1500m", "24Gi")
    assert parsed.pod["nodeSelector"] == {"pool": "gpu"}
    assert [*parsed.flags, "--executor-input", "{{$}}"] == plain["transfer"]["args"]
    assert "accelerator" not in launcher["resources"]
    assert {step for step in STEPS if nodes[step] != plain[step]} == {"transfer", "train_source"}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("pemt:0123456789ab-cu130", "pemt-0123456789ab-cu130"),
        ("registry.local:5000/team/pemt", "pemt-untagged"),
        ("registry.local:5000/team/pemt:V_1.2", "pemt-v-1-2"),
        (f"pemt@sha256:{'a' * 64}", f"pemt-{'a' * 40}"),
    ],
)
def test_the_version_has_a_name_that_kubernetes_allows(image: str, version: str, tmp_path: Path) -> None:
    """The name contains a hash of the compiled pipeline, as the content behind a Kubernetes name must not change."""
    (tmp_path / "pemt.yaml").write_text("a pipeline")
    assert version_name(image, tmp_path / "pemt.yaml") == f"{version}-{hashlib.sha256(b'a pipeline').hexdigest()[:8]}"


# Comparison with schemas


@pytest.mark.parametrize(
    "differences",
    [
        *(
            {"recipe": recipe}
            for recipe in ("demo", "study", "decoder", "pretrain", "pretrain_decoder", "scratch", "paper")
        ),
        {"kubeflow": DEMANDING},
        {"kubeflow": {"secret": "", "retry": {**RETRY, "times": 0}}},
        {"kubeflow": {**DEMANDING, **ON_NODES}},
    ],
    ids=str,
)
def test_the_compiled_document_is_a_pipeline_spec(compiled: Compile, differences: Mapping[str, Any]) -> None:
    """Kubeflow's protobuf messages parse the document and reject unknown keys and values of the wrong type."""
    document, *platform = compiled(differences)
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "pemt"
    for executor in spec.deployment_spec["executors"].values():
        json_format.ParseDict(
            json_format.MessageToDict(executor), pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec()
        )
    for config in (p["platforms"]["kubernetes"]["deploymentSpec"]["executors"] for p in platform):
        for executor in config.values():
            json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_manifests_hold_the_same_pipeline(compiled: Compile) -> None:
    name = "pemt-0123456789ab-c0ffee00"
    options = KubernetesManifestOptions(
        pipeline_name="pemt", pipeline_version_name=name, namespace="team", include_pipeline_manifest=True
    )
    plain, platform = compiled({"kubeflow": DEMANDING})
    pipeline, version = compiled({"kubeflow": DEMANDING}, options)
    for resource, kind, called in ((pipeline, "Pipeline", "pemt"), (version, "PipelineVersion", name)):
        assert (resource["apiVersion"], resource["kind"]) == ("pipelines.kubeflow.org/v2beta1", kind)
        assert resource["metadata"] == {"name": called, "namespace": "team"}
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", called)
    assert version["spec"]["pipelineName"] == "pemt"
    assert version["spec"]["pipelineSpec"] == plain
    assert version["spec"]["platformSpec"] == platform
    assert len(json.dumps(version)) < 1_000_000  # etcd rejects resources of more than 1.5 MB


# The image's tag


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A repository with this project's files committed."""
    workspace = Workspace(tmp_path / "project", environment(tmp_path / "caches"))
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(workspace.folder)], check=True)
    for name in (
        "pipelines",
        "pemt_core",
        "components",
        "params.yaml",
        "recipes",
        "Dockerfile",
        ".dockerignore",
        "pyproject.toml",
    ):
        workspace.run("cp", "--recursive", str(REPOSITORY / name), ".")
    workspace.run("git", "add", "--all")
    workspace.run("git", "commit", "--quiet", "--allow-empty", "--message", "what is at hand")
    return workspace


def tag(workspace: Workspace) -> str:
    """Return the tag of the image that params.yaml of the repository names."""
    done = workspace.run("python", "-m", "pipelines.compile", "--output", str(workspace.folder.parent / "pemt.yaml"))
    name, _, tag = done.stdout.strip().rpartition(" ")[2].partition(":")
    assert name == "pemt-pipeline"
    return tag


def test_the_tag_depends_only_on_the_content(clone: Workspace) -> None:
    first = tag(clone)
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    clone.replace("README.md", "# PEMT Pipeline", "# PEMT pipeline")
    assert tag(clone) == first  # the file is not part of the image
    clone.commit("words")
    assert tag(clone) == first
    clone.replace("pemt_core/errors.py", "a bug:", "a bug :")
    changed = tag(clone)
    assert re.fullmatch(rf"{first}-[0-9a-f]{{8}}", changed)
    (clone.folder / "pemt_core" / "new.py").write_text("NEW = 1\n")
    assert tag(clone) not in (first, changed)
    clone.commit("code")
    committed = tag(clone)
    assert re.fullmatch(r"[0-9a-f]{12}", committed)
    assert committed != first
    clone.change_settings({"kubeflow": {"torch": "cu130"}})
    assert tag(clone) == f"{committed}-cu130"  # other content makes another image with another tag


# Bad input


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--output", "~/x.yaml"], "~/x.yaml: there is no folder ~ here; write out what ~ stands for"),
        (["--output", "."], ".: is a folder; expected a file to write"),
        (["--output", "{}/x.yaml", "--namespace", "team"], "--namespace is team, but only --manifests write it"),
    ],
)
def test_flags_of_compile_that_cannot_work_end_in_one_line(tmp_path: Path, words: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "pipelines.compile", "--params", PARAMS, "--image", IMAGE, *words]
    command = [str(word).replace("{}", str(tmp_path)) for word in command]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert not (tmp_path / "x.yaml").exists()
    assert not (REPOSITORY / "~").exists()


def test_folders_missing_in_pods_are_named() -> None:
    def reasons(adapter: str, **kubeflow: str) -> list[str]:
        values = read_params(PARAMS)
        lay_over(values, {"imported_sources": {"own": {"adapter": adapter, "description": "A task."}}})
        lay_over(values, {"prepare": {"source": "/pemt/data"}, "kubeflow": kubeflow})
        return unfit_for_a_cluster(parse_settings(values, "test"))

    assert reasons("/pemt/own", volume="claim") == []
    (reason,) = reasons("imported/own", volume="claim")
    assert reason.startswith(
        "imported_sources.own.adapter is imported/own, a folder that pods do not have: expected one below"
    )
    assert [reason.split()[0] for reason in reasons("/pemt/own")] == ["prepare.source", "imported_sources.own.adapter"]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            {"resources": {"transfer": {"gpu": 1}}},
            "unknown key 'kubeflow.resources.transfer.gpu'; did you mean 'gpus'?",
        ),
        ({"resources": {"transfers": {}}}, "did you mean 'transfer'?"),
        (
            {"resources": {"transfer": {"memory": "8 GB"}}},
            "transfer.memory' is '8 GB': expected bytes with a unit, as in",
        ),
        (
            {"resources": {"plan": {"cpu": "0"}}},
            "key 'kubeflow.resources.plan.cpu' is '0': expected cores, or thousandths",
        ),
        ({"nodes": {"transfer": 2}}, "transfer runs on several nodes, which share a volume: set volume to its claim"),
        (
            {"image": "pemt-pipeline:v1"},
            "'kubeflow.image' is 'pemt-pipeline:v1': expected an image's name without a tag",
        ),
        ({"secret": "my secret"}, "'kubeflow.secret' is 'my secret': expected a name of lower-case letters, digits"),
        ({"volume": "Claim"}, "'kubeflow.volume' is 'Claim': expected a name of lower-case letters, digits"),
        ({"gpu_resource": "gpu"}, "'kubeflow.gpu_resource' is 'gpu': expected a resource of pods"),
        ({"runtime": ""}, "'kubeflow.runtime' is '': expected a name of lower-case letters, digits, - and ."),
        ({"torch": "cuda"}, "key 'kubeflow.torch' is 'cuda': expected cpu, or a build for GPUs, as in cu130"),
        ({"paralelism": 3}, "unknown key 'kubeflow.paralelism'; did you mean 'parallelism'?"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path: Path, differences: dict[str, Any], expected: str) -> None:
    params = write_params(tmp_path / "params.yaml", {"kubeflow": differences})
    command = ["python", "-m", "pipelines.compile", "--params", params, "--output", tmp_path / "x.yaml"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.yaml").exists()
