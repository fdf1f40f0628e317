"""The compose files of the team's server: secrets, versions, exposed ports. test_tracking_server runs them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from team_server import FOLDER, MissingVariableError, compose
from workspace import REPOSITORY

FILES = ("compose.yaml", "compose.s3.yaml")
FILLED = {
    **dict.fromkeys(("POSTGRES_PASSWORD", "ADMIN_PASSWORD", "SECRET_KEY"), "0123456789ab"),
    "HOST_NAME": "mlflow.example.org",
    **dict.fromkeys(("S3_DESTINATION", "S3_ENDPOINT", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "s3"),
}
TEXTS = {name: (FOLDER / name).read_text() for name in FILES}
KEYS = {"build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "ports", "restart"}


def services() -> dict[str, Any]:
    return compose(FILLED, *FILES)


def test_services_have_valid_keys_and_start_in_order() -> None:
    found = services()
    assert list(found) == ["postgres", "migrate", "mlflow"]
    for service in found.values():
        assert set(service) <= KEYS | {"volumes", "security_opt"}
    assert "healthcheck" in found["postgres"]
    assert "healthcheck" in found["mlflow"]
    assert found["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert found["mlflow"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert "restart" not in found["migrate"]


def test_only_mlflow_is_exposed_and_only_locally_by_default() -> None:
    assert "ports" not in services()["postgres"]
    assert services()["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert compose({**FILLED, "BIND": "0.0.0.0", "PORT": "80"}, *FILES)["mlflow"]["ports"] == ["0.0.0.0:80:5000"]


def test_volumes_are_declared() -> None:
    used = {line.split(":")[0] for service in services().values() for line in service.get("volumes", [])}
    assert used == set(YAML(typ="safe").load(TEXTS["compose.yaml"])["volumes"])


@pytest.mark.parametrize("name", FILLED)
def test_a_variable_without_a_value_is_an_error(name: str) -> None:
    with pytest.raises(MissingVariableError, match=rf"^{name} has no value in \.env$"):
        compose({**FILLED, name: ""}, *FILES)


def test_secrets_have_no_default_and_are_in_no_command() -> None:
    for text in TEXTS.values():
        for name in re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*):?-", text):
            raise AssertionError(f"{name} has a default")
    for service in services().values():
        assert FILLED["ADMIN_PASSWORD"] not in str([service.get("command"), service.get("healthcheck")])


def test_the_example_names_every_variable_and_no_secret() -> None:
    lines = dict(re.findall(r"^(?:# )?([A-Z_0-9]+)=(.*)$", (FOLDER / ".env.example").read_text(), re.M))
    used = {name for text in TEXTS.values() for name in re.findall(r"\$\{(\w+)", text)}
    assert set(lines) == used | {"COMPOSE_FILE"}
    assert {lines[name] for name in lines if re.search("PASSWORD|KEY", name)} == {""}
    assert lines["COMPOSE_FILE"] == ":".join(FILES)
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", "".join(TEXTS.values())):
        assert lines[name] == default


def test_git_ignores_the_secrets() -> None:
    command = ["git", "check-ignore", "tracking_server/.env"]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 0
    command = ["git", "check-ignore", "tracking_server/.env.example"]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 1


def test_images_are_pinned() -> None:
    image = services()["postgres"]["image"]
    assert re.fullmatch(r"postgres:\d+-\w+", image)
    base = re.search(r"^ARG BASE_IMAGE=(.+)$", (FOLDER / "Dockerfile").read_text(), re.M)
    pipeline = re.search(r"^ARG BASE_IMAGE=(.+)$", (REPOSITORY / "Dockerfile").read_text(), re.M)
    assert base
    assert pipeline
    assert base[1] == pipeline[1]


def test_the_image_installs_constrained_versions() -> None:
    install = re.search(r"pip install --constraint \S+ (.+)", (FOLDER / "Dockerfile").read_text())
    assert install
    names = {re.sub(r"\[.*\]|'", "", word) for word in install[1].split()}
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert names == {"mlflow", "psycopg2-binary", "boto3"}
    for name in (*names, "Flask-WTF"):  # required by mlflow's extra for user accounts
        assert re.search(rf"^{name}==", constraints, re.M | re.I), name


def test_what_the_image_copies_is_not_ignored() -> None:
    copied = {
        word
        for line in re.findall(r"^COPY (.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.M)
        for word in line.split()
    }
    kept = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((REPOSITORY / Path(name)).is_file() for name in copied)
