"""The image of the team's server on a Docker engine: it runs the commands of compose.yaml on a local PostgreSQL."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Postgres, running_postgres
from team_server import FOLDER, TeamServer
from workspace import REPOSITORY

from pemt_core.tracking import RunRecord, connect

pytestmark = [pytest.mark.engine, pytest.mark.postgres, pytest.mark.slow]

IMAGE, CONTAINER = "pemt-tracking-server:test", "pemt-tracking-server-test"
MADE_BASE = "localhost/pemt-base:bookworm"  # built by tests/engine.sh if no registry answers
RECORD = RunRecord("transfer/x", "", "x", "adapter", "result", {}, {}, {"test/main": 1.0}, [], {"adapter.json": "{}\n"})


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=600, env={**os.environ, "DOCKER_BUILDKIT": "1"}
    )
    assert done.returncode == 0 or not check, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def image() -> str:
    if docker("version", check=False).returncode:
        pytest.skip("no Docker engine answers: `. tests/engine.sh` makes one")
    made = docker("image", "inspect", MADE_BASE, check=False).returncode == 0
    base = ["--build-arg", f"BASE_IMAGE={MADE_BASE}"] if made else []
    ca = ["--secret", f"id=ca,src={os.environ['SSL_CERT_FILE']}"] if "SSL_CERT_FILE" in os.environ else []
    dockerfile = ["--file", str(FOLDER / "Dockerfile")]
    docker("build", "--network", "host", *base, *ca, *dockerfile, "--tag", IMAGE, str(REPOSITORY))
    return IMAGE


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as cluster:
        yield cluster


def flags(server: TeamServer, service: str) -> list[str]:
    """Return a service's variables and command for `docker run` on the host network."""
    command, variables = server.command(service)
    moved = {str(FOLDER / name): f"/app/{name}" for name in ("auth.ini", "migrate.py")}
    moved[str(server.artifacts)] = "/artifacts"
    of_service = {k: moved.get(v, v) for k, v in variables.items() if k.startswith(("PG", "MLFLOW_"))}
    words = [word for name, value in of_service.items() for word in ("--env", f"{name}={value}")]
    safety = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    return ["--network", "host", *safety, *words, IMAGE, *(moved.get(word, word) for word in command)]


def test_the_image_migrates_and_serves_without_rights(
    image: str, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TeamServer(tmp_path, postgres, postgres.new_database("team"), extra={"WORKERS": "1"})
    assert docker("run", "--rm", image).stdout.startswith("mlflow, version 3.17")
    assert docker("run", "--rm", image, "id", "-u").stdout.strip() == "1000"
    docker("run", "--rm", *flags(server, "migrate"))
    docker("run", "--detach", "--name", CONTAINER, "--volume", "/artifacts", *flags(server, "mlflow"))
    try:
        server.wait()
        for name, value in server.add_user("ada").items():
            monkeypatch.setenv(name, value)
        assert connect(server.uri, "pemt", tmp_path, "stop").record(RECORD)
        stored = docker("exec", CONTAINER, "find", "/artifacts", "-type", "f").stdout
        assert re.fullmatch(r"/artifacts/1/\w{32}/artifacts/adapter.json\n", stored)
    finally:
        log = docker("logs", CONTAINER, check=False)
        docker("rm", "--force", "--volumes", CONTAINER, check=False)
    for secret in (postgres.password, server.admin_password, server.secret_key):
        assert secret not in log.stdout + log.stderr
