"""Checks of the Docker engine and the current context's cluster, which `pemt image`, `local` and `submit` need."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pemt_core.doctor.finding import Finding, SilenceError, Status, Surroundings, ask

IMAGE_DISK = 8 * 2**30  # the image, the layers of its build, and a next image


def docker(place: Surroundings) -> Iterator[Finding]:
    """Check the client, its engine, and the space for images if the engine runs on this machine."""
    host = place.variables.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not shutil.which("docker"):
        found = "not installed; `pemt image` and `pemt local` need it"
        yield Finding("Docker", Status.SKIPPED, found, "install Docker's client and engine")
        return
    try:
        done = ask("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    except SilenceError as error:
        yield Finding("Docker", Status.WARNING, f"{host}: {error}", "start the engine, or correct DOCKER_HOST")
        return
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["the client gives no reason"])[-1]
        denied = "permission denied" in message
        fix = "join the group docker, or set DOCKER_HOST" if denied else "start the engine, or set DOCKER_HOST"
        yield Finding("Docker", Status.WARNING, message, fix)
        return
    client, server = done.stdout.split()
    yield Finding("Docker", Status.OK, f"client {client}, engine {server} at {host}")
    yield from _room()


def _room() -> Iterator[Finding]:
    try:
        root = Path(ask("docker", "info", "--format", "{{.DockerRootDir}}").stdout.strip())
        free = shutil.disk_usage(root).free
    except (SilenceError, OSError):
        return  # the engine runs elsewhere
    found = f"{free / 2**30:.1f} GiB are free in {root}"
    if free >= IMAGE_DISK:
        yield Finding("Docker's disk", Status.OK, found)
    else:
        fix = f"free space by `docker system prune`; a build needs {IMAGE_DISK // 2**30} GiB"
        yield Finding("Docker's disk", Status.WARNING, found, fix)


def cluster(place: Surroundings) -> Iterator[Finding]:
    """Check the Kubernetes cluster of the current context."""
    try:
        done = ask(sys.executable, "-m", "pemt_core.doctor.cluster_probe")
    except SilenceError as error:
        yield Finding("cluster", Status.WARNING, f"no answer ({error})", "check the current context of the kubeconfig")
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the client gives no reason"]
        yield Finding("cluster", Status.WARNING, f"the client failed: {lines[-1]}", "check KUBECONFIG")
        return
    seen = json.loads(done.stdout)
    if "context" not in seen:
        found = "no current context; it is needed to create the Secret and the volume claim for `pemt submit`"
        yield Finding("cluster", Status.SKIPPED, found, "kubectl config use-context NAME")
    elif "version" in seen:
        yield Finding("cluster", Status.OK, f"{seen['context']} at {seen['server']}: Kubernetes {seen['version']}")
    else:
        found = f"{seen['context']} at {seen['server']}: no answer ({seen['error']})"
        fix = "check the network, log in again, or choose another: kubectl config use-context NAME"
        yield Finding("cluster", Status.WARNING, found, fix)
