"""The sqlite store: locked by another process, copied with its project, on a full disk."""

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from pemt_core.artifacts.run_info import RunInfo
from pemt_core.errors import PemtError
from pemt_core.tracking import Tracker, connect

URI = "sqlite:///mlflow.db"


def tracker_in(folder: Path) -> Tracker:
    return connect(URI, "pemt", folder, "stop")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with a store that holds a run with a file."""
    folder = tmp_path_factory.mktemp("stores") / "original"
    folder.mkdir()
    record(folder)
    return folder


def record(folder: Path) -> None:
    """Record a run with a file: its parameters are long."""
    with tracker_in(folder).open_run(RunInfo("transfer/x", "x", {}, {"long": "x" * 1_000})) as run:
        run.log(1, {"loss": 1.0})


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copied_project_writes_to_itself(original: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    before, message = every_file(original), ""
    try:
        record(copy)
    except PemtError as error:
        message = str(error)
    assert every_file(original) == before
    assert str(original) in message or every_file(copy).keys() - before.keys()


def test_a_locked_store_is_waited_for(original: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    other = sqlite3.connect(copy / "mlflow.db", check_same_thread=False)
    other.execute("begin exclusive")

    def release() -> None:
        time.sleep(3)
        other.rollback()
        other.close()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        record(copy)
    finally:
        thread.join()
    with sqlite3.connect(copy / "mlflow.db") as store:
        assert store.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0] >= 1
    store.close()
