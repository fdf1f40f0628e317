"""The file of an embedded store: names of folders, locks of other processes, full and read-only disks, copies."""

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from pemt_core.tracking import RunRecord, Tracker, TrackingError, connect, patience, sqlite_file
from pemt_core.tracking.address import sqlite_path, sqlite_uri
from pemt_core.tracking.moved import PLACES
from pemt_core.tracking.patience import holder_of
from pemt_core.tracking.store import open_store

URI = "sqlite:///mlflow.db"
RECORD = RunRecord(
    cell="transfer/cb/pemt/k=full/seed=4096",
    key="",
    name="cb pemt",
    artifact="adapter-1",
    result="result-1",
    tags={"pemt.task": "cb"},
    params={"seed": 4096},
    metrics={"test/main": 92.8},
    history=[{"step": step, "train/loss": 1.0 / step} for step in (1, 2)],
    files={"adapter.json": '{"rank": 64}\n'},
)


def client_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(sqlite_uri(folder / "mlflow.db"))


def opened(folder: Path) -> Tracker:
    return connect(URI, "pemt", folder, "stop")


def error_of(folder: Path, uri: str = URI) -> str:
    """The one line of the error with "stop"; with "continue" it must be a warning."""
    with pytest.raises(TrackingError) as caught:
        connect(uri, "pemt", folder, "stop").record(RECORD)
    going_on = connect(uri, "pemt", folder, "continue")
    assert not going_on.record(RECORD)
    assert not going_on.active
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Names of folders


ODD = "a%20b ?#é;:@&=+'\"\\n`$(x)%zz日"


def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes its files there and nowhere else, also if it is the working folder."""
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert opened(folder).record(RECORD)
    assert not opened(folder).record(RECORD)
    run = opened(folder).find(RECORD.cell)
    assert run is not None
    assert opened(folder).read_file(run, "adapter.json") == '{"rank": 64}\n'
    assert (folder / "mlartifacts" / run.run_id / "artifacts" / "adapter.json").is_file()
    assert os.listdir(tmp_path) == [ODD]
    assert sorted(os.listdir(folder)) == [".mlflow.db.lock", "mlartifacts", "mlflow.db"]
    assert sqlite_path(sqlite_uri(folder / "mlflow.db"), Path("/elsewhere")) == folder / "mlflow.db"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///my%20runs/x.db", "my runs/x.db"),
        ("sqlite:///25%25/x.db", "25%/x.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("sqlite:///a#b.db", "a#b.db"),
    ],
)
def test_a_sqlite_uri_is_read_as_sqlalchemy_reads_it(uri: str, expected: str, tmp_path: Path) -> None:
    from sqlalchemy import make_url

    assert make_url(uri).database == expected
    assert sqlite_path(uri, tmp_path) == tmp_path / expected


def test_names_that_a_uri_cannot_hold_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    for uri, expected in {
        f"sqlite:///{tmp_path}/a%20b/x.db": r"a b does not exist, .*a%20b does; write a % of its name as %25",
        f"sqlite:///{tmp_path}/a?b/x.db": r"write a \? of a file's or folder's name as %3F",
        "sqlite:///a%FFb/x.db": r"a\\udcffb/x.db: .*with '\\udcff', which is not UTF-8",
        "sqlite:///a%00b/x.db": r"a\\x00b/x.db: .*with '\\x00', which is not UTF-8",
    }.items():
        assert re.search(expected, error_of(tmp_path, uri))
    folder = tmp_path / os.fsdecode(b"a\xffb")
    folder.mkdir()
    assert "which is not UTF-8; rename the folder" in error_of(folder)


# Locks


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM runs").fetchall()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""
HOLD_LOCK_FILE = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(code: str, *arguments: str) -> Iterator[int]:
    """Run a program that holds a lock until the end of the body, or until it ends itself; yield its process id."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        try:
            yield program.pid
        finally:
            program.kill()


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN"])
def test_a_file_that_another_process_holds_is_waited_for(
    begin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEGIN holds a reader's lock, which only writers must wait for."""
    monkeypatch.setattr(patience, "SILENT_WAIT", 0.2)
    opened(tmp_path)
    with held(HOLD, str(tmp_path / "mlflow.db"), begin, "2"):
        assert opened(tmp_path).record(RECORD)
    if begin == "BEGIN EXCLUSIVE":
        assert caplog.text.count("waiting, for up to 60 s: process ") == 1


def test_a_request_waits_longer_than_mlflow_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait of MLflow itself is cut here to one second."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def shorter(*arguments: Any) -> tuple[str, Any]:
        return arguments[2].replace("busy_timeout = 20000", "busy_timeout = 1000"), arguments[3]

    monkeypatch.setattr(patience, "SILENT_WAIT", 0.2)
    tracker = opened(tmp_path)
    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    try:
        with held(HOLD, str(tmp_path / "mlflow.db"), "BEGIN EXCLUSIVE", "3"):
            assert tracker.record(RECORD)
    finally:
        event.remove(Engine, "before_cursor_execute", shorter)
    assert "mlflow.db: waiting, for up to 60 s: process " in caplog.text
    (run,) = client_of(tmp_path).search_runs(["1"])
    assert [point.step for point in client_of(tmp_path).get_metric_history(run.info.run_id, "train/loss")] == [1, 2]


def test_a_process_that_never_lets_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.5)
    opened(tmp_path)
    for code, path in ((HOLD, tmp_path / "mlflow.db"), (HOLD_LOCK_FILE, tmp_path / ".mlflow.db.lock")):
        with held(code, str(path), "BEGIN EXCLUSIVE", "60") as pid:
            assert holder_of(path).startswith(f"process {pid} (python")
            assert re.search(rf"mlflow.db: process {pid} \(python.*\) held it for more than", error_of(tmp_path))
    assert opened(tmp_path).record(RECORD)


# Disks and files


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of its own at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "pemt-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")


@needs_root
@pytest.mark.parametrize("size", ["size=3m", "size=300k", "size=3m,nr_inodes=1"])
def test_a_disk_that_is_full_before_the_database_exists(size: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size) as folder:
        if size == "size=3m":
            (folder / "filler").write_bytes(bytes(3 << 20))
        started = time.monotonic()
        assert re.search(rf"{folder}/mlflow.db: the disk is full \(.* free.*{folder}\)", error_of(folder))
        assert time.monotonic() - started < 20
        assert {path.name for path in folder.iterdir()} <= {"filler", ".mlflow.db.lock"}


@needs_root
def test_a_disk_that_gets_full_later(tmp_path: Path) -> None:
    long = replace(RECORD, history=[{"step": step, "train/loss": 1.0} for step in range(20000)])
    with small_disk(tmp_path / "disk", "size=3m") as folder:
        stop, going_on = opened(folder), connect(URI, "pemt", folder, "continue")
        (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 400_000))
        with pytest.raises(
            TrackingError, match=rf"^{folder}/mlflow.db: the disk is full \([\d.]+ MB free in {folder}\)"
        ):
            stop.record(long)
        assert not going_on.record(long)
        assert not going_on.active
        (folder / "filler").unlink()
        assert opened(folder).record(replace(RECORD, result="result-2"))


@needs_root
def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=9m") as folder:
        opened(tmp_path)
        shutil.copyfile(tmp_path / "mlflow.db", folder / "mlflow.db")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert error_of(folder).startswith(f"{folder}/mlflow.db: cannot be written to (read-only)")
        for uri in ("sqlite:///new.db", "sqlite:///sub/new.db"):
            assert error_of(folder, uri).startswith(f"{folder}: cannot be written to (Read-only file system)")


def test_what_cannot_be_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "fifo.db")
    (tmp_path / "file").write_text("text")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    assert error_of(tmp_path, "sqlite:///folder.db") == (
        f"{tmp_path}/folder.db: is a folder; tracking.uri needs a file, as in sqlite:///mlflow.db"
    )
    assert "fifo.db: is no file" in error_of(tmp_path, "sqlite:///fifo.db")
    assert f"{tmp_path}/file: is a file where tracking needs a folder" in error_of(tmp_path, "sqlite:///file/x.db")
    assert error_of(tmp_path, "sqlite:///other.db").endswith(
        "a database, but not MLflow's; set tracking.uri to another file"
    )


def test_a_damaged_store_is_named_and_no_line_advises_to_lose_it(tmp_path: Path) -> None:
    opened(tmp_path).record(RECORD)
    path = tmp_path / "mlflow.db"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:3000], whole[:100] + b"\xff" * 8000, b"notes" * 1000):
        path.write_bytes(damaged)
        error = error_of(tmp_path)
        assert re.search(r"mlflow.db: not usable as an sqlite database \(.*\): keep a copy of it", error)
        assert not re.search("move|delete|remove", error)
        assert path.read_bytes() == damaged


def test_a_creation_that_was_killed_leaves_nothing(tmp_path: Path) -> None:
    left = tmp_path / ".mlflow.db.new"
    left.mkdir()
    (left / "mlflow.db").write_text("half")
    (left / "mlflow.db-journal").write_text("half")
    assert opened(tmp_path).record(RECORD)
    assert not left.exists()


# Copied and moved projects


def bytes_in(folder: Path) -> dict[str, str]:
    """A hash of each file's bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything that MLflow records with a place: runs, models, logged models and traces.

    The programs below run in it once; tests copy it, and must not change it.
    """
    folder = tmp_path_factory.mktemp("filled") / "original ?%20"
    (folder / "backbone").mkdir(parents=True)
    opened(folder).record(RECORD)
    program = FILL.format(uri=sqlite_uri(folder / "mlflow.db"), backbone=str(folder / "backbone"))
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, env={**os.environ, **QUIET})
    return folder


QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}
FILL = """
import mlflow
mlflow.set_tracking_uri({uri!r})
mlflow.set_experiment("pemt")
client = mlflow.MlflowClient()
(run,) = client.search_runs(["1"])
client.create_registered_model("pemt-cb")
source = f"runs:/{{run.info.run_id}}/adapter.json"
client.create_model_version("pemt-cb", source, run.info.run_id, tags={{"pemt.backbone_dir": {backbone!r}}})
client.create_model_version("pemt-cb", f"{{run.info.artifact_uri}}/adapter.json", run.info.run_id)
model = client.create_logged_model("1", name="logged")
mlflow.trace(lambda: 1)()
mlflow.flush_trace_async_logging()
assert mlflow.search_traces(locations=["1"], return_type="list")
client.create_run("0")
"""


def places_in(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Tables and columns of the database that name `folder`, as a path or a URI."""
    found = []
    with closing(sqlite3.connect(path)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]:
                texts = [str(value) for (value,) in database.execute(f'SELECT "{column}" FROM "{table}"')]
                if any(str(folder) in text or folder.as_uri() in text for text in texts):
                    found.append((table, column))
    return found


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_a_copy_has_its_own_files_and_the_original_stays_as_it_was(
    filled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original = copied(filled, tmp_path / "original")
    opened(original)  # is now at home here, as if it had been made here
    assert "came from" in caplog.text
    caplog.clear()
    before, copy = bytes_in(original), copied(original, tmp_path / "copy#%41")
    assert opened(copy).record(replace(RECORD, cell="train_source/mnli"))
    assert caplog.text.count(f"{copy}/mlflow.db: came from {original}") == 1
    assert opened(copy).record(replace(RECORD, result="result-2"))
    assert caplog.text.count("came from") == 1
    assert bytes_in(original) == before
    original.rename(tmp_path / "elsewhere")
    store = open_store(URI, "pemt", copy)
    assert {store.read_file(run.info.run_id, "adapter.json") for run in store.client.search_runs(["1"])} == {
        '{"rank": 64}\n'
    }
    client = store.client
    first, second = sorted(client.search_model_versions(), key=lambda version: int(version.version))
    for version in (first, second):
        place = client.get_model_version_download_uri("pemt-cb", version.version)
        assert Path(download(place, store.uri)).read_text() == '{"rank": 64}\n'
    assert first.tags["pemt.backbone_dir"] == str(copy / "backbone")
    assert places_in(copy / "mlflow.db", original) == []
    assert set(places_in(copy / "mlflow.db", copy)) <= {(table, name) for table in PLACES for name in PLACES[table]}


def download(place: str, uri: str) -> str:
    from mlflow.artifacts import download_artifacts

    return str(download_artifacts(place, tracking_uri=uri))


def test_every_place_that_mlflow_records_is_known(filled: Path) -> None:
    found = places_in(filled / "mlflow.db", filled)
    assert set(found) == {(table, column) for table, columns in PLACES.items() for column in columns}


def test_a_moved_project_goes_on(filled: Path, tmp_path: Path) -> None:
    first = copied(filled, tmp_path / "first")
    opened(first)
    first.rename(tmp_path / "second")
    assert opened(tmp_path / "second").record(replace(RECORD, result="result-2"))
    assert not first.exists()


def test_a_database_that_was_copied_without_its_files_is_refused(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "the copy"
    opened(original).record(RECORD)
    copy.mkdir()
    shutil.copyfile(original / "mlflow.db", copy / "mlflow.db")
    before = bytes_in(original)
    error = error_of(copy)
    assert error.startswith(f"{copy}/mlflow.db: it was copied from {original} without the files of its runs: copy them")
    assert bytes_in(original) == before
    (command,) = re.findall("`(.*)`", error)
    subprocess.run(command, shell=True, check=True)
    assert opened(copy).record(replace(RECORD, result="result-2"))
    assert bytes_in(original) == before


def test_a_copy_of_a_store_without_files_starts_its_own(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    opened(original)
    copy.mkdir()
    shutil.copyfile(original / "mlflow.db", copy / "mlflow.db")
    opened(copy).record(RECORD)
    assert (copy / "mlartifacts").is_dir()
    assert not (original / "mlartifacts").exists()


@pytest.mark.parametrize("name", ["files", "mlartifacts"])
@pytest.mark.parametrize("with_files", [False, True])
def test_a_place_that_the_user_chose_stays(
    name: str, with_files: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project, chosen = tmp_path / "project", tmp_path / "big disk" / name
    chosen.parent.mkdir()
    open_store(URI, "other", project)
    client_of(project).create_experiment("pemt", artifact_location=chosen.as_uri())
    if with_files:
        opened(project).record(RECORD)
    assert opened(project).record(replace(RECORD, result="result-2"))
    assert list(chosen.rglob("adapter.json"))
    assert "came from" not in caplog.text


def test_only_a_new_file_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """SQLite's levels: 2 waits at every commit, 0 never."""

    def level(name: str) -> int:
        uri = sqlite_uri(tmp_path / name) if name else "sqlite://"  # in memory
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return int(connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar_one())

    with sqlite_file.written_at_the_end(tmp_path / "new.db"):
        assert (level("new.db"), level("other.db"), level("")) == (0, 2, 2)
    assert level("new.db") == 2
