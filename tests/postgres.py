"""PostgreSQL for tests: a separate cluster in a temporary folder that requires passwords, as a team's does."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

USER = "mlflow"
SERVER = "postgres"  # runs the server when the tests run as root, which PostgreSQL refuses


@dataclass(frozen=True)
class Postgres:
    """A cluster on a port of 127.0.0.1; every TCP connection requires the password (scram-sha-256)."""

    programs: Path
    folder: Path
    port: int
    password: str

    def start(self) -> None:
        self._run("pg_ctl", "--wait", f"--log={self.folder}/log", f"--pgdata={self.folder}/data", "start")

    def stop(self) -> None:
        """Stop at once, even with open connections."""
        self._run("pg_ctl", "--wait", "--mode=immediate", f"--pgdata={self.folder}/data", "stop")

    def create(self) -> None:
        """Create the cluster's files; `USER` is its superuser, as in the official image."""
        secret = self.folder / "password"
        secret.write_text(self.password)
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        give_to_server(self.folder)
        self._run(
            "initdb", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", f"--pgdata={self.folder}/data"
        )
        lines = [f"{name} = '{value}'\n" for name, value in {**settings, "fsync": "off"}.items()]
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(lines)

    def variables(self, database: str) -> dict[str, str]:
        """The variables that tell PostgreSQL's client library which database to use."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }

    def query(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query; an empty list for a statement without rows."""
        with closing(
            psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database)
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    def new_database(self, name: str) -> str:
        """Create an empty database and return its name."""
        self.query("postgres", f"CREATE DATABASE {name}")
        return name

    def run_client(self, program: str, database: str, *arguments: str) -> None:
        """Run one of PostgreSQL's client programs on a database."""
        command, variables = [str(self.programs / program), *arguments], self.variables(database)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.programs / program), *arguments], user=SERVER if os.getuid() == 0 else None,
            group=SERVER if os.getuid() == 0 else None, cwd=self.folder, env={"LC_ALL": "C.UTF-8"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def give_to_server(folder: Path) -> None:
    """Change the owner of a folder and its contents to the user that runs the server."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, SERVER, SERVER)


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; Debian keeps them off PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent  # PATH may hold a link to this program only
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A running cluster, removed afterwards; skips if PostgreSQL is not installed."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL's programs are neither on PATH nor in /usr/lib/postgresql: apt-get install postgresql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    # not below pytest's folders, which other users cannot enter
    with tempfile.TemporaryDirectory(prefix="pemt-postgres-") as place:
        postgres = Postgres(folder, Path(place), port, f"p@ss/{secrets.token_hex(8)}:%")
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
