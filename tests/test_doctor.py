"""Each check of `pemt doctor` against the real thing: repositories, remotes, servers, closed ports, broken files."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hub_server import HubServer
from kfp_server import KfpServer
from moto.server import ThreadedMotoServer
from packaging.requirements import Requirement
from source_code import REPOSITORY
from test_components import free_port
from test_submit import nothing
from workspace import Workspace, new_workspace, write_params

from pemt_core.doctor import CHECKS, Finding, Status, Surroundings, containers, finding, machine, project, services

OK, WARNING, FAILURE, SKIPPED = Status.OK, Status.WARNING, Status.FAILURE, Status.SKIPPED
NOTHING: Mapping[str, Any] = {}
FROM_THE_HUB: Mapping[str, Any] = {
    "tasks": {"sources": ["squad"], "targets": ["nq"]},
    "prepare": {"source": "hub"},
    "backbone": {"name": "google-t5/t5-small"},
}


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Surroundings]:
    """Surroundings for checks: params.yaml with differences in a separate folder, variables, a Kubeflow host."""

    def surroundings(
        differences: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        host: str | None = None,
    ) -> Surroundings:
        return Surroundings.of(write_params(tmp_path / "params.yaml", differences or {}), variables or {}, host)

    return surroundings


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project under git and DVC. Tests that change it copy it first."""
    return new_workspace(tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("caches"), [])


def at(workspace: Workspace) -> Surroundings:
    return Surroundings.of(workspace.folder / "params.yaml", workspace.environment, None)


def only(findings: Iterator[Finding], name: str) -> Finding:
    """The one finding of this name; checks that a problem comes with a fix."""
    (found,) = [one for one in findings if one.name == name]
    assert found.fix or found.status in (OK, SKIPPED)
    return found


@contextmanager
def answering(answers: Mapping[str, tuple[int, str]], *, token: str = "") -> Iterator[str]:
    """Serve these answers by path and yield the URL; 404 for other paths, 401 for requests without the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers.get(self.path.partition("?")[0], (404, "no such page"))
            if token and self.headers.get("Authorization") != token:
                status, text = 401, "who are you?"
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


# As a whole


def test_only_the_broken_check_fails(workspace: Workspace) -> None:
    """Runs all checks at once: only the broken one fails, and every problem comes with a fix."""
    uri = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "components.cli", "doctor", "--json"],
        cwd=workspace.folder, env={**workspace.environment, "MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["ok"] is False
    checks = {check["name"]: check for check in document["checks"]}
    assert len(checks) == len(document["checks"])
    assert set(CHECKS) <= set(checks)
    assert [name for name, check in checks.items() if check["status"] == FAILURE] == ["tracking"]
    assert uri in checks["tracking"]["found"]
    assert [check for check in checks.values() if check["status"] in (WARNING, FAILURE) and not check["fix"]] == []


def test_a_silent_server_times_out(look: Callable[..., Surroundings]) -> None:
    with socket.socket() as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "ANSWER_SECONDS", 0.3)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = only(services.kubeflow(look(host=f"http://127.0.0.1:{silent.getsockname()[1]}")), "Kubeflow")
    assert found.status == FAILURE
    assert "timed out" in found.found


# The machine


def test_packages_outside_their_range_are_named() -> None:
    required = [Requirement("numpy<1"), Requirement("no-such-package"), Requirement("pytest")]
    first, second = machine._unmet(required)
    assert first.startswith("numpy is ")
    assert first.endswith("expected <1")
    assert second == "no-such-package is not installed"


def test_torch_that_does_not_load_is_a_failure(look: Callable[..., Surroundings], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
        (found,) = machine.torch_and_devices(look())
    assert found.status == FAILURE
    assert found.found == "does not load: ImportError: libcudart.so.13: cannot open shared object file"


NO_GPU = {"version": "2.13.0+cpu", "cuda": None, "threads": 1, "gpus": [], "warning": ""}
OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."


@pytest.mark.parametrize(
    ("seen", "on_the_bus", "status", "expected"),
    [
        (NO_GPU, False, OK, "no GPU; the CPU is enough for `make demo`"),
        (NO_GPU, True, WARNING, "NVIDIA H200 is present, but torch 2.13.0+cpu is a CPU build"),
        (
            {**NO_GPU, "cuda": "13.0", "warning": OLD_DRIVER},
            True,
            WARNING,
            f"NVIDIA H200 is present with driver 570.86.15, but torch with CUDA 13.0 cannot use it ({OLD_DRIVER})",
        ),
        (
            {**NO_GPU, "cuda": "13.0", "gpus": ["NVIDIA H200 (140 GiB, bfloat16)"]},
            True,
            OK,
            "NVIDIA H200 (140 GiB, bfloat16), driver 570.86.15",
        ),
    ],
)
def test_torch_and_the_gpu_it_can_use(
    look: Callable[..., Surroundings], tmp_path: Path, seen: Any, on_the_bus: bool, status: Status, expected: str
) -> None:
    """A script replaces nvidia-smi and prints what it prints on a machine with a GPU."""
    if on_the_bus:
        script = tmp_path / "nvidia-smi"
        script.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.86.15'\n")
        script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        found = machine._device(look({"backbone": {"name": "."}}), seen)
    assert (found.status, found.found) == (status, expected)


def test_a_hub_backbone_needs_a_gpu(look: Callable[..., Surroundings]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        found = machine._device(look(FROM_THE_HUB), NO_GPU)
    assert found.status == WARNING
    assert "google-t5/t5-small would train on the CPU" in found.found


@pytest.mark.parametrize(
    ("differences", "gpus", "slowdown", "keys"),
    [
        ({"backbone": {"dtype": "bfloat16"}}, [], 3.26, "backbone.dtype"),
        (
            {"training": {"precision": "bfloat16"}},
            [],
            3.26,
            "train_source.training.precision, transfer.training.precision",
        ),
        (
            {"backbone": {"kind": "scratch", "training": {"precision": "bfloat16"}}},
            [],
            3.26,
            "backbone.training.precision",
        ),
        ({"per_target": {"cb": {"training": {"precision": "bfloat16"}}}}, [], 3.26, "per_target.cb.training.precision"),
        ({"methods": {"pemt": {"training": {"precision": "bfloat16"}}}}, [], 3.26, "methods.pemt.training.precision"),
        ({"evaluate": {"precision": "bfloat16"}}, [], 3.26, "evaluate.precision"),
        ({"methods": {"pemt": {"training": None}}, "backbone": {"dtype": "bfloat16"}}, [], 3.26, ""),  # not settings
        ({"backbone": {"dtype": "bfloat16"}}, [], None, ""),
        ({"backbone": {"dtype": "bfloat16"}}, ["NVIDIA H200 (140 GiB, bfloat16)"], 3.26, ""),
        ({}, [], 3.26, ""),
    ],
)
def test_bfloat16_on_a_cpu_without_its_instructions(
    look: Callable[..., Surroundings],
    differences: dict[str, Any],
    gpus: list[str],
    slowdown: float | None,
    keys: str,
) -> None:
    seen = {**NO_GPU, "gpus": gpus, "slowdown_of_bfloat16": slowdown}
    found = list(machine._bfloat16(look(differences), seen))
    assert [one.fix for one in found] == ([f"set float32 if the memory suffices: {keys}"] if keys else [])
    assert all(
        one.found == "this CPU multiplies 3.3 times as slowly in bfloat16 as in float32" and one.status == WARNING
        for one in found
    )


def test_memory_and_disk_are_compared_with_the_need(
    look: Callable[..., Surroundings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_hub = look(FROM_THE_HUB, {"HF_HOME": str(tmp_path / "not" / "yet")})
    total, free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), shutil.disk_usage(tmp_path).free
    for needed, memory, disk, cache in ((0, OK, OK, OK), (max(total, 2 * free), WARNING, FAILURE, WARNING)):
        for name in ("DEMO_MEMORY", "DEMO_DISK", "HUB_DISK"):
            monkeypatch.setattr(machine, name, needed)
        assert only(machine.memory(from_hub), "memory").status == memory
        assert only(machine.disk(from_hub), "disk").status == disk
        found = only(machine.disk(from_hub), "hub's cache")
        assert found.status == cache
        assert str(tmp_path / "not" / "yet") in found.found
    assert [one.name for one in machine.disk(look())] == ["disk"]


# The project


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"recipe": "papper"}, "recipe 'papper': there is no recipes/papper.yaml; did you mean 'paper'?"),
        ({"train_source": {"rnak": 3}}, "unknown key 'train_source.rnak'"),
    ],
)
def test_invalid_settings_are_a_failure(
    look: Callable[..., Surroundings], differences: Mapping[str, Any], expected: str
) -> None:
    place = look(differences)
    found = only(project.settings(place), "settings")
    assert found.status == FAILURE
    assert expected in found.found
    assert [*services.tracking(place), *services.hub(place)] == []  # these checks need valid settings


def test_a_folder_without_settings(tmp_path: Path) -> None:
    found = only(project.settings(Surroundings.of(tmp_path / "params.yaml", {}, None)), "settings")
    assert (found.status, found.found) == (FAILURE, f"{tmp_path / 'params.yaml'}: no such file")
    assert "--params" in found.fix


def test_an_unknown_task_is_a_failure(look: Callable[..., Surroundings]) -> None:
    found = only(project.settings(look({"tasks": {"targets": ["hotpottqa"]}})), "settings")
    assert found.status == FAILURE
    assert "did you mean 'hotpotqa'?" in found.found


def test_a_source_that_is_not_there_is_a_warning(look: Callable[..., Surroundings]) -> None:
    found = only(project.settings(look({"prepare": {"source": "embeded"}})), "settings")
    assert found.status == WARNING
    assert "prepare.source is 'embeded': no such folder; did you mean 'embedded'?" in found.found


def test_valid_settings_are_summarised(look: Callable[..., Surroundings]) -> None:
    assert only(project.settings(look()), "settings").found.endswith("recipe demo, 6 sources, 17 targets")


def test_the_state_of_the_repository(workspace: Workspace, tmp_path: Path) -> None:
    changed = workspace.clone(tmp_path / "clone")
    commit = changed.run("git", "rev-parse", "--short", "HEAD").stdout.strip()
    assert only(project.git(at(changed)), "git").found == f"commit {commit}, no changes"
    (changed.folder / "new.txt").write_text("new")
    (changed.folder / "Makefile").write_text("all:")
    assert only(project.git(at(changed)), "git").found == f"commit {commit}, 2 changed files"


def test_a_folder_without_git_or_dvc(look: Callable[..., Surroundings], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        found = only(project.git(look()), "git")
        assert (found.status, "not a git repository" in found.found) == (FAILURE, True)
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
        assert only(project.git(look()), "git").status == WARNING  # no commit yet
        patch.setenv("PATH", str(tmp_path))
        assert only(project.git(look()), "git").found == "git did not start (No such file or directory)"
    found = only(project.dvc(look()), "DVC")
    assert (found.status, found.found) == (FAILURE, f"{tmp_path} is not a DVC project")


def test_a_folder_as_remote(workspace: Workspace, tmp_path: Path) -> None:
    here, storage = workspace.clone(tmp_path / "clone"), tmp_path / "storage"
    found = only(project.dvc(at(here)), "DVC remote")
    assert (found.status, found.fix) == (SKIPPED, "dvc remote add -d storage FOLDER")
    here.run("dvc", "remote", "add", "--default", "shared", str(storage))
    found = only(project.dvc(at(here)), "DVC remote")
    assert (found.status, found.found) == (WARNING, f"shared, {storage}: does not exist")
    storage.write_text("a file")
    assert only(project.dvc(at(here)), "DVC remote").found == f"shared, {storage}: not a folder"
    storage.unlink()
    storage.mkdir()
    assert only(project.dvc(at(here)), "DVC remote") == Finding("DVC remote", OK, f"shared, {storage}")
    here.run("dvc", "config", "core.remote", "sahred")
    found = only(project.dvc(at(here)), "DVC remote")
    assert (found.status, found.found) == (WARNING, "core.remote is sahred, which does not exist")
    (here.folder / ".dvc" / "config").write_text("no section\n")
    assert only(project.dvc(at(here)), "DVC").status == FAILURE


def test_a_bucket_as_remote(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    here, port = workspace.clone(tmp_path / "clone"), free_port()
    here.run("dvc", "remote", "add", "--default", "bucket", "s3://team/pemt")
    here.run("dvc", "remote", "modify", "bucket", "endpointurl", f"http://127.0.0.1:{port}")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        found = only(project.dvc(at(here)), "DVC remote")
        assert found.status == WARNING
        assert "The specified bucket does not exist" in found.found
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1").create_bucket(
            Bucket="team"
        )
        found = only(project.dvc(at(here)), "DVC remote")
        assert (found.status, found.found) == (OK, "bucket, s3://team/pemt: reachable")
    finally:
        server.stop()


# Tracking


def test_a_tracking_file(look: Callable[..., Surroundings], tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    found = only(services.tracking(look()), "tracking")
    assert (found.status, found.found) == (OK, f"{path}: the first run creates it")
    path.write_text("no database" * 100)
    found = only(services.tracking(look()), "tracking")
    assert (found.status, "file is not a database" in found.found) == (FAILURE, True)
    going_on = look({"tracking": {"on_unreachable": "continue"}})
    assert only(services.tracking(going_on), "tracking").status == WARNING
    assert "move" not in f"{found.found} {found.fix}"
    path.unlink()
    path.mkdir()
    assert f"{path}: is a folder" in only(services.tracking(look()), "tracking").found


def test_a_tracking_file_below_a_file(look: Callable[..., Surroundings], tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    found = only(services.tracking(look({"tracking": {"uri": "sqlite:///runs/mlflow.db"}})), "tracking")
    assert found.status == FAILURE
    assert f"{tmp_path / 'runs'} is not a writable folder" in found.found


HEALTHY = {"/health": (200, "OK"), "/api/2.0/mlflow/experiments/search": (200, '{"experiments": []}')}
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({**HEALTHY, ARTIFACTS: (200, "{}")}, [("tracking", OK), ("artifacts", OK)]),
        ({**HEALTHY, ARTIFACTS: (503, "")}, [("tracking", OK), ("artifacts", WARNING)]),
        ({}, [("tracking", FAILURE)]),
        ({**HEALTHY, "/api/2.0/mlflow/experiments/search": (200, "<html>")}, [("tracking", FAILURE)]),
    ],
)
def test_a_tracking_server(
    look: Callable[..., Surroundings], answers: Mapping[str, tuple[int, str]], expected: list[tuple[str, Status]]
) -> None:
    with answering(answers) as url:
        found = list(services.tracking(look({"tracking": {"uri": url}})))
    assert [(one.name, one.status) for one in found] == expected
    assert all(url in one.found for one in found if one.name == "tracking")


def test_a_tracking_server_that_needs_a_login(look: Callable[..., Surroundings]) -> None:
    with answering({**HEALTHY, ARTIFACTS: (200, "{}")}, token="Basic dXNlcjpzZWNyZXQ=") as url:  # user:secret
        refused = only(services.tracking(look({"tracking": {"uri": url}})), "tracking")
        known = {"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": "secret"}
        let_in = only(services.tracking(look(variables={"MLFLOW_TRACKING_URI": url, **known})), "tracking")
    assert (refused.status, refused.found) == (FAILURE, f"{url} refuses access (401)")
    assert "MLFLOW_TRACKING_TOKEN" in refused.fix
    assert let_in.status == OK


# The hub


def test_the_hub_check_is_skipped_if_nothing_comes_from_it(look: Callable[..., Surroundings]) -> None:
    here = look({"backbone": {"name": str(REPOSITORY / "pemt_core" / "embedded" / "backbone")}})
    assert only(services.hub(here), "hub").status == SKIPPED


def test_the_hub_has_what_the_settings_name(look: Callable[..., Surroundings], tmp_path: Path) -> None:
    with HubServer() as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
        hub.publish("datasets", "rajpurkar/squad", tmp_path)
        found = only(services.hub(look(FROM_THE_HUB, variables)), "hub")
        assert found.status == FAILURE
        assert "refuses models/google-t5/t5-small without a token (404)" in found.found
        hub.publish("models", "google-t5/t5-small", tmp_path)
        found = only(services.hub(look(FROM_THE_HUB, variables)), "hub")
        assert (found.status, found.found.partition(" has ")[2]) == (
            OK,
            "datasets/rajpurkar/squad and models/google-t5/t5-small",
        )
    found = only(services.hub(look(FROM_THE_HUB, variables)), "hub")
    assert found.status == FAILURE
    assert "Connection refused" in found.found
    found = only(services.hub(look(FROM_THE_HUB, {**variables, "HF_HUB_OFFLINE": "1"})), "hub")
    assert (found.status, str(tmp_path) in found.found) == (WARNING, True)


@pytest.mark.parametrize("kept", ["variable", "file"])
def test_the_hub_gets_the_token(look: Callable[..., Surroundings], tmp_path: Path, kept: str) -> None:
    variables = {"HF_HOME": str(tmp_path)}
    if kept == "file":
        (tmp_path / "token").write_text("hf_x\n")
    else:
        variables["HF_TOKEN"] = "hf_x"
    answers = {"/api/datasets/rajpurkar/squad": (200, "{}"), "/api/models/google-t5/t5-small": (200, "{}")}
    with answering(answers, token="Bearer hf_x") as url:
        assert only(services.hub(look(FROM_THE_HUB, {**variables, "HF_ENDPOINT": url})), "hub").status == OK


# Docker and the cluster


def test_a_missing_docker_engine_is_not_a_failure(
    look: Callable[..., Surroundings], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv("DOCKER_HOST", host)  # docker's client reads it
    found = only(containers.docker(look(variables={"DOCKER_HOST": host})), "Docker")
    if shutil.which("docker"):
        assert (found.status, host in found.found) == (WARNING, True)
    monkeypatch.setenv("PATH", "")
    assert only(containers.docker(look()), "Docker").status == SKIPPED


def kubeconfig(path: Path, server: str) -> None:
    named = {"name": "test", "cluster": {"server": server}}
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    everything = {"clusters": [named], "contexts": [context], "users": [{"name": "test", "user": {}}]}
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "test", **everything}))


def test_the_cluster_of_the_current_context(
    look: Callable[..., Surroundings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, here = tmp_path / "config", look()
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert only(containers.cluster(here), "cluster").status == SKIPPED
    about = {"major": "1", "minor": "31", "gitVersion": "v1.31.4", "platform": "linux/amd64"}
    about |= dict.fromkeys(("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion"), "")
    with answering({"/version/": (200, json.dumps(about))}) as url:
        kubeconfig(path, url)
        found = only(containers.cluster(here), "cluster")
        assert (found.status, found.found) == (OK, f"test at {url}: Kubernetes v1.31.4")
    found = only(containers.cluster(here), "cluster")
    assert (found.status, "Connection refused" in found.found) == (WARNING, True)
    path.write_text("{")
    assert only(containers.cluster(here), "cluster").status == WARNING


def test_the_api_of_kubeflow(look: Callable[..., Surroundings]) -> None:
    assert only(services.kubeflow(look()), "Kubeflow").status == SKIPPED
    with KfpServer(nothing) as kfp:
        found = only(services.kubeflow(look(host=kfp.url)), "Kubeflow")
        assert (found.status, found.found) == (OK, f"{kfp.url} answers; single user")
    with KfpServer(nothing, namespaces=["team"]) as kfp:
        assert only(services.kubeflow(look(host=kfp.url)), "Kubeflow").found.endswith("needs --namespace")
    with KfpServer(nothing, token="secret") as kfp:
        found = only(services.kubeflow(look(host=kfp.url)), "Kubeflow")
        assert (found.status, "--token-file" in found.fix) == (WARNING, True)
    with answering({"/apis/v2beta1/healthz": (200, "<html>log in</html>")}) as url:
        assert only(services.kubeflow(look(host=url)), "Kubeflow").status == WARNING
    with HubServer() as another:
        found = only(services.kubeflow(look(host=another.url)), "Kubeflow")
        assert (found.status, "not the API of Kubeflow Pipelines (404)" in found.found) == (FAILURE, True)
    assert only(services.kubeflow(look(host=f"http://127.0.0.1:{free_port()}")), "Kubeflow").status == FAILURE
