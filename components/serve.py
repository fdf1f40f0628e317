"""Serve a target's registered model over HTTP, to this machine only. Stop it with Ctrl-C.

It checks model, alias, backbone and port, and then runs MLflow's scoring server.
"""

import argparse
import json
import os
from pathlib import Path

from components.command import HOST, add_params, check_port, explained, run
from components.server import run_server
from pemt_core.errors import ArtifactError
from pemt_core.settings import load_settings

APP = "components.scoring_app:make_app"
MODEL = "__pyfunc_model_path__"  # the variable that tells MLflow's app which model it serves


def main(arguments: argparse.Namespace) -> int:
    from pemt_core.tracking.models import BACKBONE, BACKBONE_DIR, check_servable, find_version
    from pemt_core.tracking.store import open_store, tracking_dir, tracking_uri

    settings, folder = load_settings(arguments.params), tracking_dir(arguments.params)
    model = f"{settings.tracking.experiment}-{arguments.target}"
    uri = f"models:/{model}@{arguments.alias or settings.models.alias}"
    store = open_store(tracking_uri(settings.tracking.uri), settings.tracking.experiment, folder)
    backbone = find_version(store, uri).tags.get(BACKBONE_DIR)
    if backbone and not Path(backbone).is_dir():
        raise ArtifactError(
            f"{backbone}: no such folder; {uri} needs it as its backbone. Restore it by `dvc pull backbone` or `dvc "
            "repro backbone`, or set models.backbone: include to store it in the next version"
        )
    check_servable(store)
    check_port(arguments.port)
    print(f"http://{HOST}:{arguments.port}/invocations answers for {uri}", flush=True)
    variables = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_DISABLE_TELEMETRY": "true", MODEL: uri}
    if backbone:  # in a copied project, its own; the version's files name the original's
        variables["SERVING_MODEL_CONFIG"] = os.environ.get("SERVING_MODEL_CONFIG") or json.dumps({BACKBONE: backbone})
    return run_server(["uvicorn", "--factory", APP, "--host", HOST, "--port", str(arguments.port)], variables)


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "serve")
    parser.add_argument("target", metavar="TASK", help="target whose model is served")
    parser.add_argument("--alias", help="alias of the version to serve (default: models.alias)")
    parser.add_argument("--port", type=int, default=5056, help="port to listen on (default: %(default)s)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
