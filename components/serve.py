"""Serve trained targets over HTTP, all on one backbone in memory. Stop it with Ctrl-C.

pemt serve                    every target of the experiment whose model has the alias
pemt serve cb rte             these
pemt serve --manifests k8s    write resources of Kubernetes that run it, and end

The column "task" of a row names its target. When the alias moves in the registry, the server follows without a restart.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from components.command import HOST, add_params, check_port, explained, run
from pemt_core.errors import ArtifactError, SettingsError
from pemt_core.paths import OutputFolder
from pemt_core.settings import Settings, load_settings

if TYPE_CHECKING:  # loaded when they are needed
    from pemt_core.serving.wanted import Wanted
    from pemt_core.tracking.store import Store

PROGRAM = "components.serve"
LOOPBACK = ("localhost", HOST)


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.serving.wanted import Wanted
    from pemt_core.tracking.store import ANY_EXPERIMENT, open_store, tracking_dir, tracking_uri

    settings = None if arguments.experiment and not arguments.params.is_file() else load_settings(arguments.params)
    experiment, alias = _names(arguments, settings)
    wanted = Wanted(experiment, alias, tuple(dict.fromkeys(arguments.targets)), arguments.backbone)
    _check_numbers(arguments)
    if arguments.manifests:
        _write_manifests(arguments, wanted)
        return
    if arguments.backbone and not arguments.backbone.is_dir():
        raise ArtifactError(f"--backbone is {arguments.backbone}: no such folder")
    uri = tracking_uri(settings.tracking.uri if settings else "")
    if not uri:
        raise SettingsError(
            f"{arguments.params}: no such file, and MLFLOW_TRACKING_URI is not set: where are the models?"
        )
    store = open_store(uri, ANY_EXPERIMENT, tracking_dir(arguments.params))
    wanted.versions(store)  # before torch is loaded
    check_port(arguments.port, arguments.host)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pemt_core.serving").setLevel(logging.INFO)
    _serve(store, wanted, arguments)


def _names(arguments: argparse.Namespace, settings: Settings | None) -> tuple[str, str]:
    """The experiment and the alias; those of the settings unless flags give them."""
    alias = arguments.alias or (settings.models.alias if settings else None)
    if alias is None:
        raise SettingsError(f"{arguments.params}: no such file; give --alias beside --experiment")
    return arguments.experiment or (settings.tracking.experiment if settings else ""), alias


def _check_numbers(arguments: argparse.Namespace) -> None:
    for flag in ("wait", "poll"):
        if getattr(arguments, flag) < 0:
            raise SettingsError(f"--{flag} is {getattr(arguments, flag):g}, expected 0 or more")
    for flag in ("queue", "batch"):
        if getattr(arguments, flag) < 1:
            raise SettingsError(f"--{flag} is {getattr(arguments, flag)}, expected 1 or more")


def _serve(store: "Store", wanted: "Wanted", arguments: argparse.Namespace) -> None:
    from pemt_core.serving.batching import QueueLimits
    from pemt_core.serving.server import Options, serve

    url = f"http://{arguments.host}:{arguments.port}"
    allowed = arguments.host in LOOPBACK if arguments.admin is None else arguments.admin
    limits = QueueLimits(arguments.wait / 1000, arguments.queue, arguments.batch)
    options = Options(arguments.host, arguments.port, limits, arguments.poll, allowed)
    serve(store, wanted, options, lambda names: print(f"{url}/invocations answers for {names}; {url}/docs", flush=True))


def _write_manifests(arguments: argparse.Namespace, wanted: "Wanted") -> None:
    from pemt_core.provenance.image import image_name
    from pemt_core.serving.manifests import Place, write_manifests

    kubeflow = load_settings(arguments.params).kubeflow
    image, flags = arguments.image or image_name(kubeflow), _other_flags(arguments)
    place = Place(kubeflow, image, PROGRAM, kubeflow.resources["evaluate"], flags)
    for path in write_manifests(arguments.manifests, wanted, place):
        print(path)


def _other_flags(arguments: argparse.Namespace) -> list[str]:
    """The flags for batches, the registry and calls that were given another value than the default."""
    default, flags = make_parser().get_default, list[str]()
    for name in ("wait", "batch", "queue", "poll"):
        value = getattr(arguments, name)
        flags += [f"--{name}", str(value)] if value != default(name) else []
    if arguments.admin is not None:
        flags.append("--admin" if arguments.admin else "--no-admin")
    return flags


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "serve")
    add = parser.add_argument
    add("targets", nargs="*", metavar="TASK", help="targets to serve (default: all whose model has the alias)")
    add("--alias", help="alias of the versions to serve (default: models.alias)")
    add("--experiment", help="whose models to serve (default: tracking.experiment); with --alias and "
        "MLFLOW_TRACKING_URI, no params.yaml is needed")  # fmt: skip
    add("--backbone", type=Path, metavar="FOLDER", help="backbone (default: the one that the versions name or contain)")
    add("--host", default=HOST, help="address to listen on; 0.0.0.0 for all (default: %(default)s)")
    add("--port", type=int, default=5056, help="port to listen on (default: %(default)s)")
    add(
        "--wait",
        type=float,
        default=3.0,
        metavar="MS",
        help="milliseconds that rows wait for others (default: %(default)g)",
    )
    add("--batch", type=int, default=256, metavar="ROWS", help="most rows answered together (default: %(default)s)")
    add("--queue", type=int, default=1024, metavar="ROWS", help="most rows that wait (default: %(default)s)")
    add(
        "--poll",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds between looks at the registry; 0: none (default: %(default)g)",
    )
    add(
        "--admin",
        action=argparse.BooleanOptionalAction,
        help="take calls that change the targets (default: if --host is this machine)",
    )
    add("--manifests", type=OutputFolder, metavar="FOLDER", help="write manifests for Kubernetes there, and end")
    add("--image", help="image in the manifests (default: kubeflow.image, tagged by its content)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
