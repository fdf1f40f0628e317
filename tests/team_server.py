"""The team's server without containers: runs the commands of tracking_server/compose.yaml with their variables.

Only what containers provide is replaced: PostgreSQL's host, addresses, and the folders /app and /artifacts.
"""

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postgres import Postgres
from ruamel.yaml import YAML
from workspace import REPOSITORY, lay_over

FOLDER = REPOSITORY / "tracking_server"
ADMIN = "admin"


class MissingVariableError(Exception):
    """Compose's error if ${NAME:?text} has no value: NAME and the text."""


def compose(variables: Mapping[str, str], *files: str) -> dict[str, Any]:
    """The services of the merged compose files, with the values of `variables` filled in."""
    services: dict[str, Any] = {}
    for file in files:
        lay_over(services, YAML(typ="safe").load(FOLDER / file)["services"])
    return filled(services, variables)


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """Compose's interpolation, as far as the project's files use it: ${NAME}, ${NAME:-default} and ${NAME:?text}."""
    if isinstance(value, dict):
        return {key: filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        name, kind, text = found["name"], found["kind"], found["text"]
        if kind == ":?" and not variables.get(name):
            raise MissingVariableError(f"{name} {text}")
        return variables.get(name) or (text if kind == ":-" else "")

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<text>[^}]*))?\}", one, value)


@dataclass
class TeamServer:
    """One server with its PostgreSQL database and its artifact store."""

    folder: Path  # holds the log and, without S3, the artifacts
    postgres: Postgres
    database: str
    files: tuple[str, ...] = ("compose.yaml",)
    extra: Mapping[str, str] = field(default_factory=dict)  # lines of .env
    admin_password: str = field(default_factory=lambda: secrets.token_hex(12))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(12))
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def command(self, service: str) -> tuple[list[str], dict[str, str]]:
        """The command and variables that a service's container would run with."""
        dot_env = {
            "POSTGRES_PASSWORD": self.postgres.password,
            "ADMIN_PASSWORD": self.admin_password,
            "SECRET_KEY": self.secret_key,
            "HOST_NAME": "mlflow.example.org",
            **self.extra,
        }
        described = compose(dot_env, *self.files)[service]
        moved = {"/app/auth.ini": str(FOLDER / "auth.ini"), "/app/migrate.py": str(FOLDER / "migrate.py")}
        moved["/artifacts"] = str(self.artifacts)
        variables = {name: moved.get(value, value) for name, value in described["environment"].items()}
        here = {"PGHOST": "127.0.0.1", "PGPORT": str(self.postgres.port), "PGDATABASE": self.database}
        here |= {"MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": str(self.port)}
        here |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.folder)}
        inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return [moved.get(word, word) for word in described["command"]], {**inherited, **variables, **here}

    def migrate(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the service `migrate`, with `changes` to its variables."""
        command, variables = self.command("migrate")
        return subprocess.run(
            command, env={**variables, **changes}, cwd=self.folder, capture_output=True, text=True, timeout=60
        )

    def start(self) -> None:
        """Start the service `mlflow` and wait until it answers."""
        command, variables = self.command("mlflow")
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=variables, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process is None or self.process.poll() is None, self.log
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Kill the server and its workers at once."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=30)
            self.process = None

    def add_user(self, name: str) -> dict[str, str]:
        """Add a user as the administrator; return MLflow's variables for that user."""
        password = secrets.token_hex(12)
        login = base64.b64encode(f"{ADMIN}:{self.admin_password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/users/create",
            json.dumps({"username": name, "password": password}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


@contextmanager
def running_server(server: TeamServer) -> Iterator[TeamServer]:
    """Start the services in compose's order; stop them afterwards."""
    done = server.migrate()
    assert done.returncode == 0, done.stderr
    server.start()
    try:
        yield server
    finally:
        server.kill()
