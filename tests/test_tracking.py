"""Tracking to real stores: SQLite files, a closed port and a real `mlflow server`."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pemt_core.artifacts.files import write_json
from pemt_core.artifacts.result import CellResult
from pemt_core.artifacts.run_info import RunInfo
from pemt_core.tracking import ARTIFACT, CELL, RESULT, RunRecord, Tracker, TrackingError, connect
from pemt_core.tracking.address import sqlite_path, without_password
from pemt_core.tracking.comparison import _run_of_source
from pemt_core.tracking.mlflow_defaults import long_requests
from pemt_core.tracking.results import record_results
from pemt_core.tracking.store import Store
from pemt_core.tracking.tracker import flat_params

URI = "sqlite:///mlflow.db"
NAME = "transfer/cb/pemt/k=full/seed=4096"
HISTORY = [{"step": step, "train/loss": 1.0 / step, "validation/main": 50.0 + step} for step in (10, 20, 30)]
RECORD = RunRecord(
    cell=NAME,
    key="",
    name="cb pemt",
    artifact="adapter-1",
    result="result-1",
    tags={"pemt.task": "cb"},
    params={"seed": 4096, "settings": {"training": {"batch_size": 32, "early_stop": None}, "precision": "float32"}},
    metrics={"test/main": 92.8, "unreadable": 0},
    history=HISTORY,
    files={"adapter.json": '{"rank": 64}\n'},
)


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return connect(URI, "pemt", tmp_path, "stop")


def client_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_in(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name("pemt").experiment_id]))


def curve(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_relative_sqlite_path_starts_at_the_given_folder(tmp_path: Path) -> None:
    tracker = connect("sqlite:///sub/mlflow.db", "pemt", tmp_path, "stop")
    assert tracker.active
    assert (tmp_path / "sub" / "mlflow.db").is_file()
    experiment = client_of(tmp_path / "sub").get_experiment_by_name("pemt")
    assert experiment.artifact_location == f"file://{tmp_path}/sub/mlartifacts"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert sqlite_path(f"sqlite:///{tmp_path}/x.db", Path("/elsewhere")) == tmp_path / "x.db"
    assert not [path for path in (tmp_path / "sub").iterdir() if path.suffix == ".tmp"]


def test_live_run_has_params_tags_curves_and_ends_finished(tmp_path: Path, tracker: Tracker) -> None:
    long = "x" * 900
    with tracker.run("train_source/mnli", "mnli", {"pemt.step": "train_source"}, {"a": {"b": 1}, "text": long}) as run:
        run.log(1, {"train/loss": 2.0, "train/sparsity_loss": 0.1})
        run.log(2, {"train/loss": 1.5})
        run.tag({ARTIFACT: "hash"})
    client = client_of(tmp_path)
    (stored,) = runs_in(client)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "mnli"
    tags = stored.data.tags
    assert (tags[CELL], tags[ARTIFACT], tags["pemt.step"]) == ("train_source/mnli", "hash", "train_source")
    assert stored.data.params["a.b"] == "1"
    assert len(stored.data.params["text"]) == 500
    assert curve(client, stored, "train/loss") == [(1, 2.0), (2, 1.5)]
    whole = tmp_path / "mlartifacts" / stored.info.run_id / "artifacts" / "params.json"
    assert json.loads(whole.read_text())["text"] == long


def test_a_rerun_replaces_its_run_and_a_failure_is_marked(tmp_path: Path, tracker: Tracker) -> None:
    with tracker.run(NAME, "first", {}, {}):
        pass
    with tracker.run("train_source/mnli", "other cell", {}, {}):
        pass
    with pytest.raises(ZeroDivisionError), tracker.run(NAME, "second", {}, {}):
        _ = 1 / 0
    status = {run.info.run_name: run.info.status for run in runs_in(client_of(tmp_path))}
    assert status == {"other cell": "FINISHED", "second": "FAILED"}


def source_info(rank: int) -> RunInfo:
    tags = {"pemt.step": "train_source", "pemt.task": "mnli", "pemt.data": "d", "pemt.backbone": f"of rank {rank}"}
    return RunInfo("train_source/mnli", f"rank {rank}", tags, {"seed": 1, "settings": {"rank": rank}})


def test_a_source_that_is_trained_with_other_settings_leaves_a_run_in_progress(tmp_path: Path) -> None:
    """As a colleague's, or that of another pipeline run, on a shared server; an equal training replaces it."""
    mine, other = (connect(URI, "pemt", tmp_path, "stop") for _ in range(2))
    with mine.open_run(source_info(32)) as run:
        with other.open_run(source_info(64)) as another:
            another.tag({ARTIFACT: "b"})
        run.log(1, {"train/loss": 2.0})
        run.tag({ARTIFACT: "a"})
    assert {run.info.run_name: run.info.status for run in runs_in(client_of(tmp_path))} == {
        "rank 32": "FINISHED",
        "rank 64": "FINISHED",
    }
    assert mine._store is not None
    for backbones, adapters, expected in (
        ({"of rank 32"}, [], "a"),
        ({"of rank 32"}, ["b"], "b"),
        ({"of 3"}, [], None),
    ):
        found = _run_of_source(mine._store, "mnli", backbones, adapters)
        assert (found and found.tags[ARTIFACT]) == expected
    with other.open_run(source_info(32)):
        pass
    assert sorted(run.info.run_name for run in runs_in(client_of(tmp_path))) == ["rank 32", "rank 64"]


def test_a_cell_that_only_a_plan_has_a_run_of_has_a_run_to_register(tracker: Tracker) -> None:
    """A cluster trained it, and this machine got its files by `dvc pull`."""
    branch = tracker.of_plan("branch")
    assert branch.record(RECORD)
    assert not tracker.record(RECORD)
    here, there = tracker.find(NAME, ""), branch.find(NAME, "")
    assert here is not None
    assert here == there
    assert tracker.of_plan("another").find(NAME, "") is None


def test_a_large_file_may_take_longer_than_other_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server answers once it has stored the file, as in a bucket."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    class Slow(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(1.5)
            self.send_response(200)
            self.end_headers()

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    file = tmp_path / "backbone.safetensors"
    file.write_bytes(b"weights")
    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        repository = HttpArtifactRepository(f"http://127.0.0.1:{server.server_port}")
        with long_requests():
            repository.log_artifact(str(file))
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"
        server.shutdown()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7200")  # which a user chose for larger ones
    with long_requests():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7200"


def test_what_a_failure_leaves_of_a_run_of_a_plan_is_replaced(
    tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails between the creation of the run and its tags, in a training and in `record`."""
    branch = tracker.of_plan("branch")

    def fails(*_: object) -> None:
        raise TrackingError("the server went away")

    for write in (lambda: branch.open_run(source_info(32)).__enter__(), lambda: branch.record(RECORD)):
        with monkeypatch.context() as failing:
            failing.setattr(Store, "set_tags", fails)
            with pytest.raises(TrackingError, match="went away"):
                write()
    with branch.open_run(source_info(32)):
        pass
    assert branch.record(RECORD)
    assert sorted(run.info.run_name for run in runs_in(client_of(tmp_path))) == ["cb pemt", "rank 32"]


def test_record_writes_a_whole_run_once(tmp_path: Path, tracker: Tracker) -> None:
    assert tracker.record(RECORD)
    client = client_of(tmp_path)
    (run,) = runs_in(client)
    assert not tracker.record(RECORD)
    (again,) = runs_in(client)
    assert again.to_dictionary() == run.to_dictionary()
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "seed": "4096",
        "settings.training.batch_size": "32",
        "settings.training.early_stop": "null",
        "settings.precision": "float32",
    }
    assert run.data.metrics == {"test/main": 92.8, "unreadable": 0, "train/loss": 1 / 30, "validation/main": 80.0}
    assert curve(client, run, "validation/main") == [(10, 60.0), (20, 70.0), (30, 80.0)]
    assert {run.data.tags[name] for name in (CELL, ARTIFACT, RESULT, "pemt.task")} == {
        NAME,
        "adapter-1",
        "result-1",
        "cb",
    }
    stored = tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "adapter.json"
    assert stored.read_text() == '{"rank": 64}\n'


def test_record_completes_the_live_run_of_the_same_artifact(tmp_path: Path, tracker: Tracker) -> None:
    def interrupted() -> None:
        with tracker.run(NAME, "live", {}, {"seed": 4096, "host": "a"}) as live:
            live.log(10, {"train/loss": 0.1})
            live.tag({ARTIFACT: "adapter-1"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    client = client_of(tmp_path)
    assert [run.info.status for run in runs_in(client)] == ["KILLED"]
    assert tracker.record(RECORD)
    (run,) = runs_in(client)
    assert (run.info.run_name, run.info.status, run.data.tags[RESULT]) == ("live", "FINISHED", "result-1")
    assert curve(client, run, "train/loss") == [(10, 0.1), (20, 1 / 20), (30, 1 / 30)]
    assert run.data.params["host"] == "a"
    assert run.data.params["settings.precision"] == "float32"
    assert run.data.metrics["test/main"] == 92.8
    assert not tracker.record(RECORD)


def test_a_new_result_extends_the_run_and_a_new_artifact_replaces_it(tmp_path: Path, tracker: Tracker) -> None:
    client = client_of(tmp_path)
    tracker.record(RECORD)
    (first,) = runs_in(client)
    assert tracker.record(replace(RECORD, result="result-2", metrics={"test/main": 50.0}))
    (second,) = runs_in(client)
    assert second.info.run_id == first.info.run_id
    assert second.data.metrics["test/main"] == 50.0
    assert len(curve(client, second, "train/loss")) == 3
    assert tracker.record(replace(RECORD, artifact="adapter-2", result="result-3"))
    (third,) = runs_in(client)
    assert third.info.run_id != first.info.run_id
    assert third.data.tags[ARTIFACT] == "adapter-2"


def test_record_removes_other_runs_of_its_cell(tmp_path: Path, tracker: Tracker) -> None:
    tracker.record(RECORD)
    client = client_of(tmp_path)
    (run,) = runs_in(client)
    client.create_run(run.info.experiment_id, tags={CELL: NAME})
    assert not tracker.record(RECORD)
    assert [left.info.run_id for left in runs_in(client)] == [run.info.run_id]


def test_more_points_and_params_than_one_request_allows(tmp_path: Path, tracker: Tracker) -> None:
    record = replace(
        RECORD,
        tags={f"tag{i}": "x" for i in range(150)},
        params={f"p{i}": i for i in range(250)},
        history=[{"step": step, "train/loss": 1.0} for step in range(2500)],
    )
    tracker.record(record)
    client = client_of(tmp_path)
    (run,) = runs_in(client)
    assert (len(run.data.params), len(curve(client, run, "train/loss"))) == (250, 2500)
    assert sum(name.startswith("tag") for name in run.data.tags) == 150


def test_parameters_are_flattened() -> None:
    params = {"a": {"b": {"c": 1.5}, "none": {}}, "list": ["x", None], "flag": True, "path": Path("p"), "text": "t"}
    expected = {"a.b.c": "1.5", "a.none": "{}", "list": '["x", null]', "flag": "true", "path": '"p"', "text": "t"}
    assert flat_params(params) == expected


def test_results_become_runs(tmp_path: Path, tracker: Tracker) -> None:
    result = CellResult(
        task="cb", suite="SuperGLUE", method="pemt", k="full", seed=4096, learning_rate=3e-4, answer="generate",
        main_metric="accuracy", test={"accuracy": 92.8, "macro_f1": 90.0}, unreadable=1, test_rows=28,
        test_rows_available=28,
        validation={"accuracy": 90.0}, trained_parameters=12345, sources=["mnli"], expert_weights=None,
        artifact="adapter", key="key", data="data", backbone="backbone", settings={"epochs": 20},
        history=[{"step": 10, "train/loss": 0.5, "train/sparsity_loss": 0.2, "validation/main": 88.0}],
    )  # fmt: skip
    directory = tmp_path / "results" / "cb" / "pemt-kfull-seed4096"
    result.save(directory)
    (directory / "predictions.jsonl").write_text('{"prediction": "neutral"}\n' * 60)
    write_json(tmp_path / "provenance" / "transfer" / "cb.json", {"commit": "0123abc"})
    arguments = ([result], tmp_path / "results", tracker, tmp_path / "provenance")
    assert [record_results(*arguments) for _ in range(2)] == [1, 0]
    (run,) = runs_in(client_of(tmp_path))
    assert run.data.metrics == {
        "test/main": 92.8, "test/accuracy": 92.8, "test/macro_f1": 90.0, "validation/accuracy": 90.0,
        "validation/main": 88.0, "train/loss": 0.5, "train/sparsity_loss": 0.2, "trained_parameters": 12345,
        "unreadable": 1, "test_rows": 28,
    }  # fmt: skip
    assert run.data.params["settings.epochs"] == "20"
    assert (run.data.tags[CELL], run.data.tags[RESULT]) == (NAME, result.content_hash())
    assert run.data.tags["pemt.commit"] == "0123abc"
    files = tmp_path / "mlartifacts" / run.info.run_id / "artifacts"
    assert len((files / "predictions-head.jsonl").read_text().splitlines()) == 50
    assert json.loads((files / "result.json").read_text())["task"] == "cb"


def test_an_unreachable_server_stops_within_seconds_or_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    started = time.monotonic()
    with pytest.raises(TrackingError, match=rf"{uri}: no tracking server answers.*tracking.on_unreachable"):
        connect(uri, "pemt", tmp_path, "stop")
    with caplog.at_level(logging.WARNING):
        tracker = connect(uri, "pemt", tmp_path, "continue")
    assert time.monotonic() - started < 6
    assert f"{uri}: no tracking server answers" in caplog.text
    assert not tracker.active
    with tracker.run(NAME, "run", {}, {}) as run:
        run.log(1, {"train/loss": 1.0})
        run.tag({ARTIFACT: "hash"})
    assert not tracker.record(RECORD)


def test_a_server_that_never_answers_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(TrackingError, match="no tracking server answers"):
            connect(uri, "pemt", tmp_path, "stop")
        assert time.monotonic() - started < 6


def test_an_unreachable_database_server_shows_no_password(tmp_path: Path) -> None:
    uri = f"postgresql://user:secret@127.0.0.1:{closed_port()}/mlflow"
    with pytest.raises(TrackingError) as caught:
        connect(uri, "pemt", tmp_path, "stop")
    assert "secret" not in str(caught.value)
    assert without_password("http://a:b@host:5/x") == "http://host:5/x"


def test_unusable_sqlite_uris_and_files_are_named(tmp_path: Path) -> None:
    for uri in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        with pytest.raises(TrackingError, match="needs a file"):
            connect(uri, "pemt", tmp_path, "stop")
    (tmp_path / "mlflow.db").write_text("these are notes, not a database")
    with pytest.raises(TrackingError, match=r"mlflow.db: not usable as an sqlite database \(file is not a database\)"):
        connect(URI, "pemt", tmp_path, "stop")
    assert not connect(URI, "pemt", tmp_path, "continue").active
    assert (tmp_path / "mlflow.db").read_text() == "these are notes, not a database"
    with pytest.raises(TrackingError, match=r"mlflow.db: is a file where tracking needs a folder"):
        connect("sqlite:///mlflow.db/sub.db", "pemt", tmp_path, "stop")


def test_an_altered_database_is_named_at_once(tmp_path: Path, tracker: Tracker) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"not usable as an sqlite database .*malformed"):
        connect(URI, "pemt", tmp_path, "stop")
    assert time.monotonic() - started < 5


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert connect(URI, "pemt", tmp_path, "stop").record(RECORD)


def older_store(path: Path) -> None:
    """Create a store as the MLflow version before the newest migration wrote it."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    newest = ScriptDirectory.from_config(config).get_revision("head")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, newest.down_revision)
    engine.dispose()


def test_a_store_of_an_older_mlflow_is_left_alone_and_the_command_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    older_store(path)
    before = path.read_bytes()
    with pytest.raises(TrackingError, match=r"mlflow.db: its schema is \w+, this MLflow has \w+.*") as error:
        connect(URI, "pemt", tmp_path, "stop")
    assert path.read_bytes() == before
    command = re.findall(r"`mlflow (.*)`", str(error.value))[0].split()
    subprocess.run([sys.executable, "-m", "mlflow", *command], check=True, capture_output=True)
    assert connect(URI, "pemt", tmp_path, "stop").record(RECORD)


def test_a_deleted_experiment_is_named(tmp_path: Path, tracker: Tracker) -> None:
    client = client_of(tmp_path)
    client.delete_experiment(client.get_experiment_by_name("pemt").experiment_id)
    with pytest.raises(
        TrackingError, match=r"was deleted; restore it by `mlflow experiments restore --experiment-id 1`"
    ):
        connect(URI, "pemt", tmp_path, "stop")


PROGRAM = """
import sys
from pathlib import Path
from pemt_core.tracking import connect
tracker = connect("sqlite:///mlflow.db", "pemt", Path(sys.argv[1]), "stop")
with tracker.run(f"train_source/{sys.argv[2]}", sys.argv[2], {}, {"seed": 1}) as run:
    for step in range(20):
        run.log(step, {"train/loss": 1.0 / (step + 1)})
"""


def test_processes_that_open_a_new_file_together_all_succeed(tmp_path: Path) -> None:
    programs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), name], stderr=subprocess.PIPE, text=True)
        for name in ("mnli", "qnli", "qqp")
    ]
    for program in programs:
        _, errors = program.communicate(timeout=120)
        assert program.returncode == 0, errors
    runs = runs_in(client_of(tmp_path))
    assert {(run.info.run_name, run.info.status) for run in runs} == {
        (name, "FINISHED") for name in ("mnli", "qnli", "qqp")
    }


def test_import_loads_no_mlflow() -> None:
    code = "import sys, pemt_core.tracking, pemt_core.tracking.results; print('mlflow' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db",
        "--artifacts-destination", f"{folder}/server-artifacts", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its worker, which runs in the same session."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    server.wait(timeout=30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = closed_port()
    process = start_server(tmp_path, port)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", process
    finally:
        stop(process)


@pytest.mark.slow
def test_a_real_server_and_its_failure(
    tmp_path: Path, server: tuple[str, subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    uri, process = server
    strict, lenient = connect(uri, "pemt", tmp_path, "stop"), connect(uri, "pemt", tmp_path, "continue")
    with lenient.run(NAME, "live", {"pemt.step": "transfer"}, {"settings": {"text": ""}}) as run:
        run.log(10, {"train/loss": 0.5})
        run.tag({ARTIFACT: "adapter-1"})
    assert strict.record(RECORD)
    assert not strict.record(RECORD)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (stored,) = runs_in(client)
    assert (stored.info.status, stored.data.metrics["test/main"]) == ("FINISHED", 92.8)
    assert [file.path for file in client.list_artifacts(stored.info.run_id)] == ["adapter.json"]
    assert list((tmp_path / "server-artifacts").rglob("adapter.json"))
    with caplog.at_level(logging.WARNING), lenient.run("train_source/mnli", "lost", {}, {}) as run:
        stop(process)
        run.log(1, {"train/loss": 1.0})
        run.flush()
        run.log(2, {"train/loss": 1.0})
    assert caplog.text.count("going on, and sending what the store misses when it answers again") == 1
    assert caplog.text.count("does not have all of the run of train_source/mnli yet") == 1
    with pytest.raises(TrackingError, match="the tracking store failed"):
        strict.record(RECORD)
