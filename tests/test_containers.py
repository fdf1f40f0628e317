"""The compiled pipeline in real containers on a Docker engine: compared with `dvc repro`, and when it fails.

One full run serves all tests; tests that change something run later in its folder, with its cache.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pytest
from workspace import REPOSITORY, Workspace, environment, new_workspace, write_params

from pemt_core.doctor import Status, Surroundings, containers

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SOURCES, TARGETS = ["mnli", "squad"], ["cb", "rte", "nq"]
SHORT: Mapping[str, Any] = {
    "tasks": {"sources": SOURCES, "targets": TARGETS},
    "train_source": {"training": {"max_steps": 20, "evaluate_every": 20}},
    "transfer": {"learning_rates": [1.0e-2], "training": {"max_steps": 10, "evaluate_every": 10}},
    "evaluate": {"max_rows": 64},
    "kubeflow": {"retry": {"times": 1, "seconds": 1}, "targets_per_branch": 2},
}
BRANCH = ["transfer", "evaluate", "record", "register"]
CELLS = ["control-k32-seed31", "pemt-k32-seed31"]


@dataclass(frozen=True)
class LocalRun:
    """The outcome of `python -m pipelines.local`."""

    exit_code: int
    output: str
    errors: str
    folder: Path  # where its artifacts are

    @property
    def executed(self) -> list[str]:
        """The steps whose containers were started, in order."""
        return re.findall(r"Executing task \S*'([\w-]+)'", self.output + self.errors)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The common folder of all runs."""
    return tmp_path_factory.mktemp("kubeflow")


def run_locally(root: Path, params: Path, *flags: str) -> LocalRun:
    command = [sys.executable, "-m", "pipelines.local", "--params", str(params), "--root", str(root / "local"), *flags]
    variables = environment(root / "caches")
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=500)
    runs = sorted((root / "local" / "runs").glob("pemt-*"))
    return LocalRun(done.returncode, done.stdout, done.stderr, runs[-1])


@pytest.fixture(scope="module")
def first(root: Path, engine_image: str) -> LocalRun:
    done = run_locally(root, write_params(root / "params.yaml", SHORT))
    assert done.exit_code == 0, done.errors[-3000:]
    return done


@pytest.fixture(scope="module")
def repro(root: Path, first: LocalRun) -> Workspace:
    """`dvc repro` with the same settings, without containers."""
    workspace = new_workspace(root / "project", root / "caches", [])
    shutil.copyfile(root / "params.yaml", workspace.folder / "params.yaml")
    workspace.repro(forks=True)
    return workspace


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results_in(run: LocalRun) -> dict[str, bytes]:
    """The results and predictions of every branch, by target and cell."""
    scores = run.folder.glob("for-loop-*/evaluate/scores")
    files = {name: data for folder in scores for name, data in below(folder).items()}
    return {name: data for name, data in files.items() if not name.endswith("inputs.json")}


def test_doctor_finds_the_engine(engine_image: str) -> None:
    place = Surroundings.of(REPOSITORY / "params.yaml", os.environ, None)
    found = [(one.name, one.status) for one in containers.docker(place)]
    assert found[0] == ("Docker", Status.OK)


# A whole run


def test_every_step_runs_in_a_separate_container(first: LocalRun) -> None:
    assert sorted(first.executed) == sorted(
        ["plan", "prepare", "backbone", *["train-source"] * 2, "collect-experts", *BRANCH * 2, "report"]
    )
    assert first.executed[:3] == ["plan", "prepare", "backbone"]
    assert first.executed[-1] == "report"
    answers = [json.loads(path.read_text()) for path in first.folder.rglob("executor_output.json")]
    assert len(answers) == len(first.executed)
    for artifact in (a for answer in answers for listed in answer["artifacts"].values() for a in listed["artifacts"]):
        assert Path(artifact["uri"]).exists()


def test_the_numbers_equal_those_of_dvc(first: LocalRun, repro: Workspace) -> None:
    """Results, predictions, adapters, experts, tables and figures match byte for byte. The page describes the run."""
    scores = {name: data for name, data in below(repro.folder / "scores").items() if not name.endswith("inputs.json")}
    assert set(results_in(first)) == {
        f"{target}/{cell}/{file}"
        for target in TARGETS
        for cell in CELLS
        for file in ("predictions.jsonl", "result.json")
    }
    assert results_in(first) == scores
    assert below(first.folder / "collect-experts" / "experts") == below(repro.folder / "experts")
    reports = [below(folder) for folder in (first.folder / "report" / "results", repro.folder / "results")]
    assert all(files.pop("report.html").startswith(b"<!DOCTYPE html>") for files in reports)
    assert reports[0] == reports[1]
    assert first.folder.joinpath("report", "page").read_text() in first.output
    adapters = {}
    for folder in first.folder.glob("for-loop-*/transfer/adapters"):
        adapters |= below(folder)
    assert adapters == below(repro.folder / "adapters" / "targets")


def test_metrics_are_kubeflow_artifacts(first: LocalRun) -> None:
    answer = json.loads((first.folder / "report" / "executor_output.json").read_text())
    shown = answer["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    summary = json.loads((first.folder / "report" / "results" / "summary.json").read_text())
    assert shown == {method: means["all"] for method, means in summary.items()}
    assert set(shown) == {"pemt-k32", "control-k32"}


def test_every_training_and_result_is_tracked(root: Path, first: LocalRun) -> None:
    """Checked with SQL in the store that all containers wrote to."""
    with closing(sqlite3.connect(root / "local" / "mlflow.db")) as database:
        runs = database.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        tags = {
            uuid: dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (uuid,))) for uuid, _ in runs
        }
    assert {status for _, status in runs} == {"FINISHED"}
    assert sorted(tag["pemt.cell"] for tag in tags.values()) == sorted(
        [f"train_source/{source}" for source in SOURCES]
        + [f"transfer/{target}/{method}/k=32/seed=31" for target in TARGETS for method in ("control", "pemt")]
        + ["report/sources", "report/control k=32", "report/pemt k=32"]
    )
    commit = json.loads((first.folder / "backbone" / "provenance").read_text())["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}(-[0-9a-f]{8})?", commit)
    assert {tag["pemt.commit"] for tag in tags.values() if tag["pemt.step"] != "report"} == {commit}
    parents = {
        tag["pemt.method"]: uuid
        for uuid, tag in tags.items()
        if tag["pemt.cell"].startswith("report/") and "pemt.method" in tag
    }
    for tag in (tag for tag in tags.values() if tag["pemt.step"] == "transfer"):
        assert tag["pemt.result"]
        assert tag["pemt.plan"] != tag["pemt.key"]
        assert tag["mlflow.parentRunId"] == parents[tag["pemt.method"]]


def test_each_branch_registers_the_champion_that_dvc_registers(root: Path, first: LocalRun, repro: Workspace) -> None:
    facts = [json.loads(path.read_text()) for path in first.folder.glob("for-loop-*/register/provenance")]
    champions = {model: number for each in facts for model, number in each["champions"].items()}
    assert champions == json.loads((repro.folder / "provenance" / "register.json").read_text())["champions"]
    assert champions == {f"pemt-{target}": 1 for target in TARGETS}
    with closing(sqlite3.connect(root / "local" / "mlflow.db")) as database:
        aliases = database.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
    assert sorted(aliases) == [(f"pemt-{target}", "champion", 1) for target in sorted(TARGETS)]


def test_a_second_run_caches_everything_but_the_report(root: Path, first: LocalRun) -> None:
    again = run_locally(root, root / "params.yaml")
    assert again.exit_code == 0, again.errors[-3000:]
    assert again.executed == ["report"]
    assert below(again.folder / "report" / "results") == below(first.folder / "report" / "results")


# A run that fails


def test_a_failed_branch_fails_the_run_and_leaves_the_others(root: Path, first: LocalRun) -> None:
    """The container's error is shown, after a retry; the report holds the finished branches and lists the rest."""
    diverging = {"per_target": {"rte": {"learning_rates": [1.0e30]}}, "evaluate": {"max_rows": 32}}
    diverging["kubeflow"] = {"targets_per_branch": 1}  # nq, which was alone in its branch, comes from the cache
    run = run_locally(root, write_params(root / "diverging.yaml", SHORT, diverging))
    assert run.exit_code == 1
    last = run.errors.strip().splitlines()[-1]
    assert re.match(r"error: for-loop-\d-iteration-1/transfer: transfer rte \S+: the loss is (nan|inf)", last)
    assert sorted(run.executed) == sorted(["plan", *["transfer"] * 3, *BRANCH[1:] * 2, "report"])
    page = (run.folder / "report" / "page").read_text()
    assert "- rte, pemt, k = 32, seed 31: its training failed: transfer rte" in page
    assert "| cb | accuracy | pemt | 32 |" in page
    assert "| nq | qa_f1 | pemt | 32 |" in page
    assert "| rte |" not in page


def test_invalid_choices_start_no_container(root: Path, first: LocalRun) -> None:
    run = run_locally(root, root / "params.yaml", "--targets", "cb", "hotpottqa")
    assert run.exit_code == 1
    expected = "tasks.targets: there is no task 'hotpottqa': did you mean 'hotpotqa'?"
    assert f"error: {root / 'params.yaml'} with --targets: {expected}" in run.errors
    assert run.executed == []  # detected before a container starts


@pytest.mark.parametrize(
    ("host", "image", "expected"),
    [
        ("unix:///nowhere/docker.sock", "pemt-pipeline:x", "unix:///nowhere/docker.sock: no Docker engine answers"),
        (None, "pemt-pipeline:never", "the Docker engine has no image pemt-pipeline:never; `pemt image` builds"),
    ],
)
def test_a_missing_engine_or_image_is_named(
    host: str | None, image: str, expected: str, tmp_path: Path, engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host:
        monkeypatch.setenv("DOCKER_HOST", host)
    command = [sys.executable, "-m", "pipelines.local", "--image", image, "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {expected}")
    assert "Traceback" not in done.stderr


# The image


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_the_image_has_labels_and_no_entrypoint(engine_image: str) -> None:
    (image,) = json.loads(docker("image", "inspect", engine_image))
    config = image["Config"]
    assert config["Entrypoint"] is None  # Kubeflow's command would be appended to it
    assert config["User"] == "1000"
    commit = docker("run", "--rm", engine_image, "cat", "/app/COMMIT")
    assert config["Labels"]["org.opencontainers.image.revision"] == commit
    assert engine_image.partition(":")[2][:12] == commit[:12]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert docker("run", "--rm", engine_image).startswith("usage: python -m components.")
    assert docker("run", "--rm", engine_image, "ls", "/app").split() == ["COMMIT", "components", "pemt_core"]


@pytest.mark.parametrize("user", ["1000", "12345:0"])
def test_a_user_without_rights_writes_where_kubeflow_mounts(engine_image: str, user: str) -> None:
    """Also a user that the cluster made up, which is only in group 0."""
    places = "/minio /s3 /gcs /pemt $HOME /tmp"
    script = f"for place in {places}; do touch $place/x || exit 1; done; touch /app/x && exit 2; id -u"
    assert docker("run", "--rm", "--user", user, engine_image, "sh", "-c", script) == user.partition(":")[0]


def test_every_program_runs_in_the_image(engine_image: str) -> None:
    steps: Sequence[str] = sorted(path.stem for path in (REPOSITORY / "components").glob("*.py"))
    shared = ("__init__", "program", "executor", "command", "trainer_api", "trainer_manifest", "cli", "completion")
    programs = [step for step in steps if step not in (*shared, "parser", "server", "parent", "handover")]
    script = "; ".join(f"python -m components.{step} --help | head -n 1" for step in programs)
    lines = docker("run", "--rm", engine_image, "sh", "-c", script).splitlines()
    assert [line.split(" [")[0] for line in lines] == [f"usage: python -m components.{step}" for step in programs]


# A container that is killed


def kill_at_first_checkpoint(folder: Path, deadline: float) -> None:
    """Kill the training container of the runs in `folder` once it has left a checkpoint on their volume."""
    while not list(folder.glob("volume/checkpoints/*/state.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    listed = docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}").splitlines()
    (container,) = (line.split()[0] for line in listed if f"{folder}/runs" in line)
    docker("kill", container)


def test_a_killed_step_resumes_from_its_checkpoint(root: Path, first: LocalRun) -> None:
    """The retry is another container with the same volume."""
    training = {"max_steps": 60, "checkpoint_every": 5, "evaluate_every": 60}
    params = write_params(root / "longer.yaml", SHORT, {"train_source": {"training": training}})
    command = [sys.executable, "-m", "pipelines.local", "--params", str(params), "--root", str(root / "local")]
    command += ["--sources", "mnli", "--targets", "cb"]
    variables = environment(root / "caches")
    process = subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=PIPE, stderr=STDOUT, text=True)
    with ThreadPoolExecutor(1) as reader:
        output = reader.submit(process.communicate, timeout=300)
        kill_at_first_checkpoint(root / "local", time.monotonic() + 120)
        printed, _ = output.result()
    assert process.returncode == 0, printed[-3000:]
    resumed = re.search(r"resumed after step (\d+) of 60", printed)
    assert resumed
    assert int(resumed[1]) >= 5
    assert re.findall(r"Executing task \S*'([\w-]+)'", printed).count("train-source") == 2
    assert [path.name for path in (root / "local" / "volume" / "checkpoints").iterdir()] == ["finished"]


def test_ctrl_c_stops_the_containers_at_once(root: Path, first: LocalRun) -> None:
    command = [sys.executable, "-m", "pipelines.local", "--params", str(root / "params.yaml"), "--no-cache"]
    folder = root / "interrupted"
    process = subprocess.Popen([*command, "--root", str(folder)], cwd=REPOSITORY, stdout=PIPE, stderr=PIPE, text=True)
    running: list[str] = []
    deadline = time.monotonic() + 60
    while not running:
        assert time.monotonic() < deadline
        running = [
            line for line in docker("ps", "--no-trunc", "--format", "{{.Command}}").splitlines() if str(folder) in line
        ]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.endswith("error: stopped; the next run takes finished steps from the cache\n")
    assert "Traceback" not in errors
    assert str(folder) not in docker("ps", "--no-trunc", "--format", "{{.Command}}")
