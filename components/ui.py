"""Show the runs in MLflow, on this machine only. Stop it with Ctrl-C.

The runs come from the tracking file of the settings, or from that of another folder: kubeflow-local after `pemt local`.
"""

import argparse
from pathlib import Path

from components.command import HOST, add_params, check_port, explained, run
from components.server import run_server
from pemt_core.errors import PemtError
from pemt_core.settings import load_settings
from pemt_core.tracking.address import sqlite_path, sqlite_uri, without_password
from pemt_core.tracking.moved import ARTIFACTS
from pemt_core.tracking.store import open_store, tracking_dir, tracking_uri

DATABASE = "mlflow.db"
SERVER = {  # job execution, which is not used here, would take 2 GB
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class UiError(PemtError):
    """The runs cannot be shown from here."""


def main(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments.params)
    if arguments.store and not arguments.store.is_dir():
        raise UiError(f"--store is {arguments.store}: no such folder; expected the one that holds {DATABASE}")
    stored = sqlite_uri(arguments.store.resolve() / DATABASE) if arguments.store else None
    uri = stored or tracking_uri(settings.tracking.uri)
    folder = tracking_dir(arguments.params)
    database = sqlite_path(uri, folder)
    if database is None:
        raise UiError(f"the runs are in {without_password(uri)}, not in a file: open that server in a browser")
    check_port(arguments.port)
    # Creates a missing database here: the server's processes would race to create it, and could corrupt it
    store = open_store(uri, settings.tracking.experiment, folder)
    words = ["--workers", "1", "--host", HOST, "--port", str(arguments.port)]
    artifacts = (database.parent / ARTIFACTS).as_uri()
    places = ["--backend-store-uri", store.uri, "--artifacts-destination", artifacts]
    view = f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=methods"
    print(f"Methods side by side, from {database}: http://{HOST}:{arguments.port}/{view}", flush=True)
    return run_server(["mlflow", "server", *words, *places], SERVER)


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "ui")
    store = f"folder with {DATABASE} (default: that of tracking.uri)"
    parser.add_argument("--store", type=Path, metavar="FOLDER", help=store)
    parser.add_argument("--port", type=int, default=5055, help="port to listen on (default: %(default)s)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
