"""Checks of the servers that the settings name: tracking, the hub, Kubeflow."""

import json
import os
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pemt_core.doctor.finding import Finding, SilenceError, Status, Surroundings, fetch
from pemt_core.doctor.machine import hub_cache
from pemt_core.settings import HUB, Settings
from pemt_core.tasks import TASKS, HubDataset
from pemt_core.tracking.address import TrackingError, check_reachable, sqlite_path, without_password
from pemt_core.tracking.failures import explain_sqlite
from pemt_core.tracking.sqlite_file import check_place

HUB_ENDPOINT = "https://huggingface.co"
START_SERVER = "start the server, correct tracking.uri, or use sqlite:///mlflow.db"


def tracking(place: Surroundings) -> Iterator[Finding]:
    """Check the tracking store and its artifacts. An unreachable store fails if tracking.on_unreachable is stop."""
    if place.settings is None:
        return
    uri = place.variables.get("MLFLOW_TRACKING_URI") or place.settings.tracking.uri
    worst = Status.FAILURE if place.settings.tracking.on_unreachable == "stop" else Status.WARNING
    try:
        path = sqlite_path(uri, place.folder)
        if path is not None:
            yield from _tracking_file(path, worst)
        elif uri.startswith(("http://", "https://")):
            yield from _tracking_server(place, uri.rstrip("/"), worst)
        else:
            check_reachable(uri)
            found = f"{without_password(uri)} answers; the first run shows whether it is MLflow's database"
            yield Finding("tracking", Status.OK, found)
    except (TrackingError, OSError) as error:
        yield Finding("tracking", worst, str(error), START_SERVER)


def _tracking_file(path: Path, worst: Status) -> Iterator[Finding]:
    parent = next(folder for folder in path.parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        found = f"{path}: {parent} is not a writable folder"
        yield Finding("tracking", worst, found, "correct tracking.uri")
        return
    check_place(path)
    if not path.exists() or not path.stat().st_size:
        yield Finding("tracking", Status.OK, f"{path}: the first run creates it")
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
            (runs,) = connection.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()
        yield Finding("tracking", Status.OK, f"{path}, runs: {runs}")
    except sqlite3.Error as error:
        fix = "correct that, or set tracking.uri to another file"
        yield Finding("tracking", worst, explain_sqlite(error, path), fix)


def _tracking_server(place: Surroundings, uri: str, worst: Status) -> Iterator[Finding]:
    """Check an MLflow server, and that it stores artifacts itself, which pods need."""
    shown = without_password(uri)
    headers = {"Content-Type": "application/json", **_tracking_login(place)}
    try:
        status, text = fetch(f"{uri}/health", headers=headers)
        if status == 200:
            search, body = f"{uri}/api/2.0/mlflow/experiments/search", json.dumps({"max_results": 1}).encode()
            status, text = fetch(search, method="POST", headers=headers, body=body)
        if status in (401, 403):
            fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            yield Finding("tracking", worst, f"{shown} refuses access ({status})", fix)
            return
        if status != 200 or not _is_json(text):
            found = f"the server at {shown} is not MLflow ({status})"
            yield Finding("tracking", worst, found, "correct tracking.uri")
            return
        yield Finding("tracking", Status.OK, f"{shown} answers")
        status, _ = fetch(f"{uri}/api/2.0/mlflow-artifacts/artifacts", headers=headers)
    except SilenceError as error:
        yield Finding("tracking", worst, f"{shown}: no server answers ({error})", START_SERVER)
        return
    if status == 200:
        yield Finding("artifacts", Status.OK, "the server stores them")
    else:
        found = f"the server does not store them ({status}), so every step needs access to their store"
        yield Finding("artifacts", Status.WARNING, found, "start it with --artifacts-destination")


def _tracking_login(place: Surroundings) -> dict[str, str]:
    """The header by which MLflow's client logs in."""
    user, password, token = (
        place.variables.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD", "TOKEN")
    )
    if user and password:
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def hub(place: Surroundings) -> Iterator[Finding]:
    """Check the Hugging Face hub if datasets or the backbone come from it."""
    if place.settings is None:
        return
    needed = _needed_from_hub(place, place.settings)
    if not needed:
        yield Finding("hub", Status.SKIPPED, "not needed: neither prepare.source nor backbone.name refers to it")
        return
    offline = next((name for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if place.variables.get(name) == "1"), "")
    if offline:
        found = f"{offline} is 1: only files in {hub_cache(place)} can be read"
        yield Finding("hub", Status.WARNING, found, f"unset {offline} unless that folder is complete")
        return
    endpoint = place.variables.get("HF_ENDPOINT", HUB_ENDPOINT).rstrip("/")
    token = _hub_token(place)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for name in needed:
        try:
            status, _ = fetch(f"{endpoint}/api/{name}", headers=headers)
        except SilenceError as error:
            fix = "check the network, set HF_ENDPOINT to a mirror, or prepare.source to a folder in the hub's layout"
            yield Finding("hub", Status.FAILURE, f"{endpoint}: no answer ({error})", fix)
            return
        if status != 200:
            login = "with your token" if token else "without a token"
            fix = "check the name; for a private or gated repository, accept its terms on the hub and set HF_TOKEN"
            yield Finding("hub", Status.FAILURE, f"{endpoint} refuses {name} {login} ({status})", fix)
            return
    yield Finding("hub", Status.OK, f"{endpoint} has {' and '.join(needed)}")


def _needed_from_hub(place: Surroundings, settings: Settings) -> list[str]:
    """The paths, in the hub's API, of one dataset and of the backbone, if the settings read them from the hub."""
    needed = []
    names = (*settings.tasks.sources, *settings.tasks.targets)
    datasets = [TASKS[name].dataset for name in names if name in TASKS]  # users' tasks are files
    repositories = [dataset.repo for dataset in datasets if isinstance(dataset, HubDataset)]
    if settings.prepare.source == HUB and repositories:
        needed.append(f"datasets/{repositories[0]}")
    if settings.backbone.kind == "hub" and not (place.folder / settings.backbone.name).is_dir():
        needed.append(f"models/{settings.backbone.name}")
    return needed


def _hub_token(place: Surroundings) -> str:
    """The token that the hub's libraries would send; empty if there is none."""
    file = hub_cache(place) / "token"
    try:
        return place.variables.get("HF_TOKEN") or file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def kubeflow(place: Surroundings) -> Iterator[Finding]:
    """Check the API of Kubeflow Pipelines at the given host."""
    host = (place.kubeflow_host or "").rstrip("/")
    if not host:
        yield Finding("Kubeflow", Status.SKIPPED, "not checked; pass --host URL to check its API")
        return
    try:
        status, text = fetch(f"{host}/apis/v2beta1/healthz")
    except SilenceError as error:
        fix = "correct --host, or forward a port to it by `kubectl port-forward`"
        yield Finding("Kubeflow", Status.FAILURE, f"{host}: no answer ({error})", fix)
        return
    if status in (401, 403) or (status == 200 and not _is_json(text)):
        found = f"{host} asks for credentials ({status})"
        yield Finding("Kubeflow", Status.WARNING, found, "pass --token-file or --cookie-file to pemt submit")
    elif status != 200:
        found = f"{host}: the server is not the API of Kubeflow Pipelines ({status})"
        yield Finding("Kubeflow", Status.FAILURE, found, "correct --host")
    else:
        several = json.loads(text).get("multi_user")
        users = "several users: pemt submit needs --namespace" if several else "single user"
        yield Finding("Kubeflow", Status.OK, f"{host} answers; {users}")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
