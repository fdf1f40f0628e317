"""Run the pipeline on this machine's Docker engine, in the same containers as on a cluster, two at a time.

--root holds all files: the artifacts of every run, the tracking database, checkpoints, and the cache from which later
runs take unchanged steps. `pemt ui --store ROOT` shows the runs.
"""

import argparse
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import docker
from docker.types import DeviceRequest, Mount
from kfp import components, local
from kfp.local import docker_task_handler

from pemt_core.errors import PemtError
from pemt_core.interruption import SIGNALS
from pemt_core.paths import OutputFolder
from pemt_core.provenance.image import image_name
from pemt_core.settings import Settings
from pemt_core.tracking.address import sqlite_uri
from pipelines.cluster import IF_THERE, VOLUME
from pipelines.command import add_choices, add_image, add_params, chosen, load, run, settings_of_run
from pipelines.compile import compile_pipeline

DATABASE = "mlflow.db"
NOISE = ("Applying expression selector", "After expression selector")  # kfp prints all settings of every branch
LABEL = "pemt.local"  # label of containers: the process that started them


class LocalRunError(PemtError):
    """The engine does not answer or lacks the image, or a step failed: then `folder` has the run's artifacts."""

    def __init__(self, message: str, folder: Path | None = None) -> None:
        super().__init__(message)
        self.folder = folder


def run_locally(package: Path, arguments: Mapping[str, Any], settings: Settings, root: Path) -> Path:
    """Run a compiled pipeline and return its artifacts' folder. LocalRunError has the messages of failed steps."""
    runs = root.resolve() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    before = set(runs.iterdir())
    local.init(_runner(settings, root.resolve()), pipeline_root=str(runs), enable_caching=True)
    docker_task_handler.run_docker_container = _run_container
    for number in SIGNALS:
        signal.signal(number, _stop)
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith(NOISE))
    pipeline = components.load_component_from_file(str(package))
    failure = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Task .* settings .* have no effect")  # for clusters
            pipeline(**arguments)
    except RuntimeError as error:
        failure = str(error)
    new = [path for path in set(runs.iterdir()) - before if not path.name.startswith(".")]
    if len(new) != 1:
        raise LocalRunError(failure or f"{runs}: another run started there meanwhile; use another --root for each run")
    (folder,) = new
    reasons = [f"{path.parent.relative_to(folder)}: {path.read_text().strip()}" for path in folder.rglob("error.txt")]
    if failure or reasons:
        raise LocalRunError(f"{'; '.join(sorted(reasons)) or failure}. The run's artifacts are in {folder}", folder)
    return folder


def _run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
    """Run a container, show its output, remove it and return its exit code.

    It replaces kfp's function, where the engine removes the container. If that happens before kfp asks for the exit
    code, kfp takes a failed container for a successful one.
    """
    container = client.containers.run(image, command, detach=True, volumes=volumes, **arguments)
    try:
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def _stop(number: int, _: Any) -> NoReturn:
    """Handle a signal: remove all containers and exit, since kfp would wait for running steps and their retries."""
    client = docker.from_env()
    for _round in range(2):  # another may be starting meanwhile
        for container in client.containers.list(filters={"label": f"{LABEL}={os.getpid()}"}):
            container.remove(force=True)
        time.sleep(0.5)
    sys.stderr.write("\nerror: stopped; the next run takes finished steps from the cache\n")
    os._exit(128 + number)


def check_image(image: str) -> None:
    """Raise LocalRunError if no Docker engine answers, or it does not have the image."""
    try:
        client = docker.from_env()
        client.images.get(image)
    except docker.errors.ImageNotFound as error:
        raise LocalRunError(f"the Docker engine has no image {image}; `pemt image` builds it") from error
    except docker.errors.APIError as error:
        raise LocalRunError(f"the Docker engine refuses the image {image}: {error.explanation}") from error
    except docker.errors.DockerException as error:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        raise LocalRunError(f"{where}: no Docker engine answers ({error}); start it, or set DOCKER_HOST") from error
    client.close()


def _runner(settings: Settings, root: Path) -> local.DockerRunner:
    """Return a runner of containers that write as this user, and share checkpoints, the hub's cache and tracking."""
    volume = root / "volume"
    volume.mkdir(exist_ok=True)
    mounts = [Mount(VOLUME, str(volume), type="bind"), Mount(str(root), str(root), type="bind"), *_data(settings)]
    asked = max(resources.gpus for resources in settings.kubeflow.resources.values())
    given = {name: os.environ[name] for name in (*IF_THERE, "OMP_NUM_THREADS") if name in os.environ}
    tracking = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri
    if tracking.startswith("sqlite:"):  # one database for all containers and this machine
        tracking = sqlite_uri(root / DATABASE)
    return local.DockerRunner(
        user=f"{os.getuid()}:0",
        network_mode="host",
        environment={**given, "MLFLOW_TRACKING_URI": tracking},
        labels={LABEL: str(os.getpid())},
        mounts=mounts,
        device_requests=[DeviceRequest(count=asked, capabilities=[["gpu"]])] if asked else None,
    )


def _data(settings: Settings) -> list[Mount]:
    """Mount the folders and files of this machine that the steps read. LocalRunError if one is missing."""
    paths = list(settings.folders.values())
    for key, folder in settings.folders.items():
        if not folder.is_absolute():
            raise LocalRunError(f"{key} is {folder}: containers need a folder's absolute path")
        if not folder.is_dir():
            other = ", or hub, or embedded" if key == "prepare.source" else ""
            raise LocalRunError(f"{key} is {folder}: no such folder; expected an existing one{other}")
    for name, entry in settings.listed_own_tasks.items():
        for split, file in entry.files.by_split.items():
            path = Path(file)
            if not path.is_absolute():
                raise LocalRunError(f"own_tasks.{name}.files.{split} is {file}: containers need a file's absolute path")
            if path.is_relative_to(VOLUME):
                continue  # it is in the folder that is mounted there
            if not path.is_file():
                raise LocalRunError(f"own_tasks.{name}.files.{split} is {file}: no such file")
            paths.append(path)
    return [Mount(str(path), str(path), type="bind", read_only=True) for path in dict.fromkeys(paths)]


def main(arguments: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    settings, params = load(arguments.params)
    of_run = settings_of_run(params, chosen(arguments), arguments.params)
    one = settings.kubeflow.nodes.model_copy(update=dict.fromkeys(settings.kubeflow.nodes.model_fields_set, 1))
    settings = settings.model_copy(update={"kubeflow": settings.kubeflow.model_copy(update={"nodes": one})})
    image = arguments.image or image_name(settings.kubeflow)
    check_image(image)
    package = arguments.root / "pemt.yaml"
    compile_pipeline(settings, params, image, package, cache=not arguments.no_cache)
    try:
        folder = run_locally(package, chosen(arguments), of_run, arguments.root)
    except LocalRunError as error:
        _show(error.folder)
        raise
    _show(folder)
    sys.stdout.write(f"artifacts of the steps that ran: {folder}\n")


def _show(folder: Path | None) -> None:
    """Print the report of a run, if there is one."""
    page = folder / "report" / "page" if folder else None
    if page and page.is_file():
        sys.stdout.write(f"\n{page.read_text(encoding='utf-8')}\n")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.local", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_params(parser)
    add_choices(parser)
    parser.add_argument(
        "--root",
        type=OutputFolder,
        default=OutputFolder("kubeflow-local"),
        help="folder for all files (default: kubeflow-local)",
    )
    add_image(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step again")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
