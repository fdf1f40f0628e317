"""The team's server with the commands of compose.yaml on PostgreSQL; the pipeline's programs write to it.

All tests share one pipeline; each server has a separate database.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer
from postgres import USER, Postgres, running_postgres
from ruamel.yaml import YAML
from team_server import MissingVariableError, TeamServer, running_server
from tiny import tiny_t5, tiny_tokenizer, write_task
from workspace import REPOSITORY, lay_over, write_params

from pemt_core.backbone.store import save_backbone
from pemt_core.tracking import RunRecord, TrackingError, connect

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

TASKS = {"source": ["alpha"], "target": ["gamma", "delta"]}
CELLS = ["train_source/alpha", *(f"transfer/{target}/pemt/k=full/seed=31" for target in TASKS["target"])]
RECORD = RunRecord("transfer/x", "", "x", "adapter", "result", {}, {}, {"test/main": 1.0}, [], {"adapter.json": "{}\n"})


@dataclass(frozen=True)
class Project:
    """A folder in which the commands of dvc.yaml run; their output is kept."""

    folder: Path
    printed: list[str]

    def start(self, step: str, variables: Mapping[str, str], **item: str) -> subprocess.Popen[str]:
        command = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"][step]["cmd"]
        for kind, name in item.items():
            command = command.replace(f"${{item.{kind}}}", name)
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, *command.split()[1:]], cwd=self.folder, text=True,
            env={**os.environ, **variables, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, program: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a program; return its exit code and its standard error."""
        output, errors = program.communicate(timeout=120)
        self.printed.append(output + errors)
        return program.returncode, errors

    def run(self, step: str, variables: Mapping[str, str], **item: str) -> str:
        """Run a program, which must succeed."""
        code, errors = self.end(self.start(step, variables, **item))
        assert code == 0, errors
        return errors

    def run_all_of(self, step: str, variables: Mapping[str, str], kind: str) -> None:
        """Run one program per task, all at the same time."""
        programs = [self.start(step, variables, **{kind: task}) for task in TASKS[kind]]
        for code, errors in [self.end(program) for program in programs]:
            assert code == 0, errors

    def change_settings(self, differences: Mapping[str, Any]) -> None:
        values = YAML(typ="safe").load(self.folder / "params.yaml")
        lay_over(values, differences)
        YAML().dump(values, self.folder / "params.yaml")

    def files_with(self, secret: str) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    made = TeamServer(
        tmp_path_factory.mktemp("server"), postgres, postgres.new_database("team"), extra={"WORKERS": "1"}
    )
    with running_server(made):
        yield made


@pytest.fixture(scope="module")
def ada(server: TeamServer) -> dict[str, str]:
    """The variables with which the pipeline finds the server and logs in."""
    return {"MLFLOW_TRACKING_URI": server.uri, **server.add_user("ada")}


@pytest.fixture(scope="module")
def project(ada: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run both stages, evaluate and the report as ada, with all targets in parallel."""
    project = Project(tmp_path_factory.mktemp("project"), [])
    tokenizer = tiny_tokenizer(project.folder)
    save_backbone(project.folder / "backbone", tiny_t5(vocab_size=len(tokenizer), d_model=32), tokenizer)
    for task in (*TASKS["source"], *TASKS["target"]):
        write_task(project.folder / "data", task)
    training = {"max_steps": 2, "warmup_steps": 0, "batch_size": 4, "validation_rows": 4}
    (project.folder / "x.csv").touch()
    entry = {"files": {"train": "x.csv"}, "text": {"text": "text"}, "target": "colour", "labels": ["red", "blue"]}
    entry |= {"description": "Decide which colour the text names.", "metrics": ["accuracy"]}
    write_params(
        project.folder / "params.yaml",
        {"tasks": {"sources": TASKS["source"], "targets": TASKS["target"]}},
        {"own_tasks": {task: entry for tasks in TASKS.values() for task in tasks}},  # prepared above
        {"train_source": {"training": training}},
        {"transfer": {"k": ["full"], "methods": ["pemt"], "learning_rates": [1e-2], "training": training}},
    )
    project.run("plan", ada)
    project.run_all_of("train_source", ada, "source")
    project.run("collect_experts", ada)
    project.run_all_of("transfer", ada, "target")
    project.run("evaluate", ada)
    project.run("record", ada)
    return project


def runs_of(postgres: Postgres, database: str) -> dict[str, dict[str, Any]]:
    """Read the training runs that are not deleted from the tables, by cell; each cell must have one run."""
    rows = postgres.query(
        database,
        """SELECT tags.value, runs.run_uuid, status, artifact_uri,
               (SELECT json_object_agg(key, value) FROM tags AS t WHERE t.run_uuid = runs.run_uuid),
               (SELECT json_object_agg(key, value) FROM params AS p WHERE p.run_uuid = runs.run_uuid),
               (SELECT json_object_agg(key, value) FROM latest_metrics AS m WHERE m.run_uuid = runs.run_uuid)
           FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'pemt.cell'
           WHERE lifecycle_stage = 'active' AND tags.value NOT LIKE 'report/%' ORDER BY tags.value""",
    )
    cells = [row[0] for row in rows]
    assert len(cells) == len(set(cells))
    names = ("id", "status", "artifacts", "tags", "params", "metrics")
    return {cell: dict(zip(names, values, strict=True)) for cell, *values in rows}


def tracked(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a run that do not depend on when it was written."""
    tags = {name: value for name, value in run["tags"].items() if name.startswith("pemt.")}
    return {"status": run["status"], "tags": tags, "params": run["params"], "metrics": run["metrics"]}


# The pipeline


def test_every_run_is_in_postgresql_with_its_files_on_the_server(
    project: Project, server: TeamServer, postgres: Postgres, ada: dict[str, str]
) -> None:
    runs = runs_of(postgres, server.database)
    assert sorted(runs) == sorted(CELLS)
    for cell, run in runs.items():
        assert run["status"] == "FINISHED"
        assert run["metrics"]["train/loss"] > 0
        assert run["params"]["settings.training.max_steps"] == "2"
        assert run["artifacts"].startswith("mlflow-artifacts:/")
        files = {path.name for path in server.artifacts.rglob("*") if run["id"] in path.parts}
        assert {"result.json", "predictions-head.jsonl"} <= files or cell.startswith("train_source")
        assert "adapter.json" in files or cell.startswith("transfer")
    here = {path.name for path in project.folder.iterdir()}
    assert not here & {"mlflow.db", "mlruns", "mlartifacts"}


def test_no_secret_is_shown_anywhere(project: Project, server: TeamServer, ada: dict[str, str]) -> None:
    passwords = (server.postgres.password, server.admin_password, server.secret_key, ada["MLFLOW_TRACKING_PASSWORD"])
    for password in passwords:
        assert password not in server.log
        assert password not in "".join(project.printed)
        assert project.files_with(password) == []
        commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands if password in command]
        tables = server.postgres.query(server.database, "SELECT value FROM tags UNION SELECT value FROM params")
        assert not [value for (value,) in tables if password in value]


def test_the_runs_of_one_server_are_copied_to_another_with_a_bucket(
    project: Project, server: TeamServer, postgres: Postgres, tmp_path: Path
) -> None:
    """The report writes the runs that a store lacks, so it also moves runs from SQLite or another server."""
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    try:
        endpoint = "http://{}:{}".format(*s3.get_host_and_port())
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "s3-secret", "region_name": "us-east-1"}
        bucket = boto3.resource("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="team")
        lines = {"S3_DESTINATION": "s3://team/mlflow", "S3_ENDPOINT": endpoint, "S3_REGION": "us-east-1"}
        lines |= {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "s3-secret"}
        files = ("compose.yaml", "compose.s3.yaml")
        new = TeamServer(tmp_path, postgres, postgres.new_database("bucket"), files, lines)
        with running_server(new):
            project.run("record", {"MLFLOW_TRACKING_URI": new.uri, **new.add_user("ada")})
            stored = [item.key for item in bucket.objects.all()]
        assert not new.artifacts.exists()
        assert "s3-secret" not in new.log
    finally:
        s3.stop()
    old, moved = runs_of(postgres, server.database), runs_of(postgres, new.database)
    assert {cell: tracked(run) for cell, run in moved.items()} == {cell: tracked(run) for cell, run in old.items()}
    for run in moved.values():
        name = "result.json" if run["tags"]["pemt.step"] == "transfer" else "adapter.json"
        assert f"mlflow/1/{run['id']}/artifacts/{name}" in stored


def test_a_killed_server_is_named_and_a_colleague_completes_the_run(
    project: Project, server: TeamServer, postgres: Postgres, ada: dict[str, str]
) -> None:
    """The server is killed while transfer writes a run; after a restart, another user's run replaces it."""
    cell = CELLS[-1]
    shutil.rmtree(project.folder / "adapters" / "targets" / "delta")
    before = runs_of(postgres, server.database)[cell]
    ben = {**ada, **server.add_user("ben")}
    program = project.start("transfer", ben, target="delta")
    deadline = time.monotonic() + 60
    while runs_of(postgres, server.database).get(cell, before)["id"] == before["id"]:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.kill()
    code, errors = project.end(program)
    assert code == 1
    assert re.search(rf"^error: {server.uri}: (the tracking store failed|no tracking server answers)", errors, re.M)
    assert "Traceback" not in errors
    server.start()
    assert runs_of(postgres, server.database)[cell]["status"] == "RUNNING"
    project.run("transfer", ben, target="delta")
    run = runs_of(postgres, server.database)[cell]
    assert run["status"] == "FINISHED"
    assert run["params"]
    assert run["params"].items() <= before["params"].items()  # the earlier run also has the params from the report
    assert run["tags"]["pemt.artifact"] == before["tags"]["pemt.artifact"]
    assert run["id"] != before["id"]


def test_a_dump_is_restored_into_another_database(
    project: Project, server: TeamServer, postgres: Postgres, tmp_path: Path
) -> None:
    dump = tmp_path / "mlflow.dump"
    postgres.run_client("pg_dump", server.database, "--format=custom", f"--file={dump}")
    restored = postgres.new_database("restored")
    postgres.run_client("pg_restore", restored, f"--dbname={restored}", "--clean", "--if-exists", str(dump))
    assert runs_of(postgres, restored) == runs_of(postgres, server.database)
    users = "SELECT username, password_hash FROM users ORDER BY username"
    assert postgres.query(restored, users) == postgres.query(server.database, users)


# Errors


def opened(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, login: Mapping[str, str]) -> str:
    """Connect with these variables; return the error, or an empty string if the server accepts the login."""
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    try:
        connect(uri, "pemt", folder, "stop").record(RECORD)
    except TrackingError as error:
        return str(error)
    return ""


def test_a_rejected_login_names_the_variables(
    server: TeamServer, ada: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = opened(server.uri, tmp_path, monkeypatch, {})
    assert error.startswith(f"{server.uri}: it asks for credentials: set MLFLOW_TRACKING_USERNAME and _PASSWORD")
    wrong = {**ada, "MLFLOW_TRACKING_PASSWORD": "not-the-one"}
    error = opened(server.uri, tmp_path, monkeypatch, wrong)
    assert error.startswith(f"{server.uri}: it does not accept the user 'ada': correct MLFLOW_TRACKING_USERNAME")
    assert "not-the-one" not in error
    named = server.uri.replace("127.0.0.1", "127.0.0.2")
    assert "no tracking server answers" in opened(named, tmp_path, monkeypatch, ada)


def test_requests_fail_only_while_postgresql_is_down(
    server: TeamServer, ada: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.postgres.stop()
    try:
        error = opened(server.uri, tmp_path, monkeypatch, ada)
        done = server.migrate()
    finally:
        server.postgres.start()
    assert error.startswith(f"{server.uri}: it answers 503: its database or its artifact store may be down")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert opened(server.uri, tmp_path, monkeypatch, ada) == ""


def test_a_wrong_password_stops_the_start_at_once_and_is_not_shown(server: TeamServer) -> None:
    begin = time.monotonic()
    done = server.migrate(PGPASSWORD="not-the-password")
    assert time.monotonic() - begin < 10
    assert done.returncode == 1
    assert f'error: connection to server at "127.0.0.1", port {server.postgres.port} failed: FATAL' in done.stderr
    assert f'password authentication failed for user "{USER}"' in done.stderr
    assert "Traceback" not in done.stderr
    assert "not-the-password" not in done.stdout + done.stderr


def test_a_start_without_a_secret_names_it(server: TeamServer) -> None:
    without = TeamServer(server.folder, server.postgres, server.database, admin_password="")
    with pytest.raises(MissingVariableError, match=r"^ADMIN_PASSWORD has no value in \.env"):
        without.command("mlflow")


# PostgreSQL without a server


def direct(postgres: Postgres, database: str) -> str:
    return f"postgresql://{USER}:{quote(postgres.password, safe='')}@127.0.0.1:{postgres.port}/{database}"


PROGRAM = """
import sys
from pathlib import Path
from pemt_core.tracking import connect
with connect(sys.argv[1], "pemt", Path(sys.argv[2]), "stop").run(f"train_source/{sys.argv[3]}", "x", {}, {}) as run:
    run.log(1, {"train/loss": 1.0})
"""


@pytest.fixture(scope="module")
def raced(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database that was empty when two processes opened it at the same time."""
    folder, name = tmp_path_factory.mktemp("raced"), postgres.new_database("direct")
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, direct(postgres, name), str(folder), task],
            stderr=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": paths},
        )
        for task in ("alpha", "other")
    ]  # fmt: skip
    for program in programs:
        _, errors = program.communicate(timeout=120)
        assert program.returncode == 0, errors
        assert postgres.password not in errors
    return name


def test_processes_that_open_an_empty_database_together_all_succeed(postgres: Postgres, raced: str) -> None:
    """Tables and experiment are created once; without a lock in the database all processes but one would fail."""
    runs = runs_of(postgres, raced)
    assert {cell: run["status"] for cell, run in runs.items()} == {
        "train_source/alpha": "FINISHED",
        "train_source/other": "FINISHED",
    }


def test_a_database_in_the_settings_is_used_and_its_password_shown_nowhere(
    project: Project, postgres: Postgres, raced: str
) -> None:
    project.change_settings({"tracking": {"uri": direct(postgres, raced), "experiment": "settings"}})
    try:
        project.run("plan", {})
        printed = project.run("record", {})
    finally:
        project.change_settings({"tracking": {"uri": "sqlite:///mlflow.db", "experiment": "pemt"}})
        project.run("plan", {})
    assert "tracking.uri contains a password, which git and dvc.lock would store: set MLFLOW_TRACKING_URI" in printed
    found = postgres.query(
        raced,
        """SELECT run_uuid, artifact_uri FROM runs JOIN experiments USING (experiment_id) JOIN tags USING (run_uuid)
           WHERE experiments.name = 'settings' AND tags.key = 'pemt.cell' AND tags.value NOT LIKE 'report/%'""",
    )
    assert len(found) == len(CELLS)
    for run_id, artifacts in found:
        folder = project.folder / "mlartifacts" / run_id / "artifacts"
        assert artifacts == folder.as_uri()
        assert (folder / "adapter.json").is_file() or (folder / "result.json").is_file()
    values = postgres.query(raced, "SELECT value FROM tags UNION SELECT value FROM params")
    for secret in (postgres.password, quote(postgres.password, safe="")):
        assert secret not in printed
        assert project.files_with(secret) == []
        assert not [value for (value,) in values if secret in value]


def test_a_database_that_rejects_or_is_missing_fails_within_seconds(postgres: Postgres, tmp_path: Path) -> None:
    begin = time.monotonic()
    wrong = f"postgresql://{USER}:not-the-password@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(TrackingError, match=r"rejects the login: .*password authentication failed") as caught:
        connect(wrong, "pemt", tmp_path, "stop")
    assert "not-the-password" not in str(caught.value)
    with pytest.raises(TrackingError, match='database "absent" does not exist'):
        connect(direct(postgres, "absent"), "pemt", tmp_path, "stop")
    with pytest.raises(TrackingError, match=r"the driver MySQLdb is missing; for PostgreSQL, run pip install"):
        connect(f"mysql://u:p@127.0.0.1:{postgres.port}/x", "pemt", tmp_path, "stop")
    assert time.monotonic() - begin < 10
