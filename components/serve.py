"""Serve a target's registered model over HTTP, on this machine alone. Ctrl-C ends it.

Becomes `mlflow models serve` once model, alias, backbone and port are there.
"""

import argparse
import os
import sys
from pathlib import Path

from components.command import HOST, add_params, check_port, explained, run
from pemt_core.errors import ArtifactError
from pemt_core.settings import load_settings


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.tracking.models import BACKBONE_DIR, find_version
    from pemt_core.tracking.store import open_store, tracking_dir, tracking_uri

    settings, folder = load_settings(arguments.params), tracking_dir(arguments.params)
    model = f"{settings.tracking.experiment}-{arguments.target}"
    uri = f"models:/{model}@{arguments.alias or settings.models.alias}"
    store = open_store(tracking_uri(settings.tracking.uri), settings.tracking.experiment, folder)
    backbone = find_version(store, uri).tags.get(BACKBONE_DIR)
    if backbone and not Path(backbone).is_dir():
        raise ArtifactError(
            f"{backbone}: no such folder; {uri} refers to it for its backbone. `dvc pull backbone` or `dvc repro "
            "backbone` brings it back, or models.backbone: include puts it into the next version"
        )
    check_port(arguments.port)
    print(f"http://{HOST}:{arguments.port}/invocations answers for {uri}", flush=True)
    words = ["models", "serve", "--model-uri", uri, "--env-manager", "local", "--host", HOST]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # MLflow starts one of these
    variables = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": programs}
    command = [sys.executable, "-m", "mlflow", *words, "--port", str(arguments.port)]
    os.execve(sys.executable, command, {**os.environ, **variables})


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "serve")
    parser.add_argument("target", metavar="TASK", help="the target whose model is served")
    parser.add_argument("--alias", help="of the version (default: models.alias)")
    parser.add_argument("--port", type=int, default=5056, help="to answer on (default: %(default)s)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
