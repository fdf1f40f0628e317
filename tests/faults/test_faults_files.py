"""Kills between writes, links, folders in the place of files, and whose data a training gets."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from soak.kills import CONTAINER, HOST, can_unshare
from test_components import run_here, transfer_arguments
from tiny import World, transfer_text
from workspace import REPOSITORY, write_params

from faults.conftest import TARGET, Pemt
from pemt_core.errors import PemtError

WRITE = """
import os, signal, sys, time
from pathlib import Path
from pemt_core.artifacts.files import atomic_directory
with atomic_directory(Path(sys.argv[1])) as folder:
    (folder / "text").write_text(sys.argv[2])
    Path(sys.argv[3]).touch()
    time.sleep(float(sys.argv[4]))
"""
# The nth of these calls in a write kills the process
KILLED_AT = """
import os, pathlib, signal, sys
from pemt_core.artifacts.files import atomic_directory
count = 0
def killing(call):
    def called(*arguments, **named):
        global count
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return called
for name in ("replace", "rename", "fsync", "rmdir", "unlink"):
    setattr(os, name, killing(getattr(os, name)))
with atomic_directory(pathlib.Path(sys.argv[1])) as folder:
    (folder / "text").write_text(sys.argv[2])
"""
needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="this process may not make process namespaces")


def python(program: str, *words: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a program that imports the product."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([*wrapper, sys.executable, "-c", program, *map(str, words)], env=environment)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_inside(process: subprocess.Popen[bytes]) -> None:
    """Kill a container's program."""
    import psutil

    for child in psutil.Process(process.pid).children():
        child.kill()
    process.wait()


def hidden(folder: Path) -> list[str]:
    """What is left of writes that did not end; a lock's file may stay."""
    return [path.name for path in folder.iterdir() if path.name.endswith((".tmp", ".old"))]


@needs_namespaces
def test_a_killed_container_does_not_stop_the_next(tmp_path: Path) -> None:
    """Both have the process id 1."""
    target, started = tmp_path / "out", tmp_path / "started"
    first = python(WRITE, target, "first", started, 60, wrapper=CONTAINER)
    wait_for(started)
    kill_inside(first)
    for text in ("second", "third"):
        assert python(WRITE, target, text, started, 0, wrapper=CONTAINER).wait(60) == 0
        assert (target / "text").read_text() == text
    assert hidden(tmp_path) == []


@needs_namespaces
def test_a_host_leaves_the_folder_of_another_alone(tmp_path: Path) -> None:
    """The process ids of the one say nothing to the other."""
    target, started = tmp_path / "out", tmp_path / "started"
    slow = python(WRITE, target, "slow", started, 3, wrapper=HOST)
    wait_for(started)
    fast = python(WRITE, target, "fast", tmp_path / "other", 0, wrapper=HOST)
    assert (slow.wait(60), fast.wait(60)) == (0, 0)
    assert (target / "text").read_text() in ("slow", "fast")
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("call", range(1, 8))
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_whole(tmp_path: Path, call: int) -> None:
    """Also if the next write fails."""
    from pemt_core.artifacts.files import atomic_directory

    target = tmp_path / "out"
    with atomic_directory(target) as folder:
        (folder / "text").write_text("old")
    assert python(KILLED_AT, target, "new", call).wait(60) in (0, -signal.SIGKILL)
    with pytest.raises(ZeroDivisionError), atomic_directory(target):
        raise ZeroDivisionError
    assert (target / "text").read_text() in ("old", "new")
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_is_followed_or_refused(tmp_path: Path, is_dangling: bool) -> None:
    from pemt_core.artifacts.files import atomic_directory

    target, link = tmp_path / "elsewhere" / "plan", tmp_path / "plan"
    if not is_dangling:
        target.mkdir(parents=True)
        (target / "old").touch()
    link.symlink_to(target)
    for text in ("first", "second"):
        message = ""
        try:
            with atomic_directory(link) as folder:
                (folder / "text").write_text(text)
        except PemtError as error:
            message = str(error)
        assert str(link) in message or (target / "text").read_text() == text
        assert link.is_symlink()
    assert hidden(tmp_path) == []
    assert not target.parent.exists() or hidden(target.parent) == []


# Folders for files, and the other way round


def test_errors_name_the_path_that_is_meant(project: Path, tmp_path: Path, pemt: Pemt) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\nred\n")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").touch()
    for words, named in (
        ([tmp_path / "folder.jsonl", "--output", tmp_path / "x.csv"], "folder.jsonl"),
        ([rows, "--output", tmp_path / "folder.jsonl"], "folder.jsonl"),
        ([rows, "--output", tmp_path / "file/x.csv"], "file"),
        ([rows, "--output", tmp_path / "x.csv", "--adapters", tmp_path / "nowhere"], "nowhere"),
        ([rows, "--output", tmp_path / "x.csv", "--backbone", tmp_path / "file"], "file"),
        ([rows, "--output", tmp_path / "x.csv", "--experts", tmp_path / "file"], "file"),
        ([rows, "--output", tmp_path / "x.csv", "--params", tmp_path], str(tmp_path)),
    ):
        ended = pemt(project, "predict", *words, "--target", TARGET)
        assert (ended.code, len(ended.errors)) == (1, 1), ended.output
        assert named in ended.errors[0]
        assert "Traceback" not in ended.output


@pytest.mark.usefixtures("fresh_accelerator")
def test_steps_name_a_path_that_they_cannot_use(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, value in (
        ("data", tmp_path / "nowhere"), ("data", tmp_path / "file"), ("backbone", tmp_path / "file"),
        ("experts", tmp_path / "folder"), ("output", tmp_path / "file/x"), ("checkpoints", tmp_path / "file/x"),
        ("settings", tmp_path / "folder"), ("tracking", tmp_path / "folder"), ("provenance", tmp_path / "folder"),
    ):  # fmt: skip
        words = transfer_arguments(world, tmp_path, **{name: value})
        error = run_here(monkeypatch, "transfer", *words)
        assert error.startswith("error: "), name
        assert str(value) in error or str(value.parent) in error, name


# Data of another task, tokenizers that are missing


@pytest.mark.usefixtures("fresh_accelerator")
def test_a_training_refuses_the_data_of_another_task(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world.folder / "data" / World.TARGET, tmp_path / "data" / "rte")
    changes = {"settings": transfer_text(task="rte", max_steps=2), "data": tmp_path / "data"}
    error = run_here(monkeypatch, "transfer", *transfer_arguments(world, tmp_path, **changes))
    assert error.startswith("error: ")
    assert "rte" in error
    assert World.TARGET in error


@pytest.mark.parametrize("name", ["/nowhere/tokenizer", "./nowhere", "a/b/c"])
def test_a_missing_tokenizer_is_refused_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is not looked for at the hub, which takes 47 s without a network."""
    from pemt_core.backbone.tokenizer import load_tokenizer

    begin = time.monotonic()
    with pytest.raises(PemtError, match=r"nowhere|a/b/c"):
        load_tokenizer(name)
    assert time.monotonic() - begin < 10


def test_the_first_error_of_a_target_is_shown_for_each_cell(world: World, tmp_path: Path) -> None:
    """A model is detached when its training fails: the next one does not find the last one's modules."""
    for _ in range(2):
        with pytest.raises(PemtError, match=r"k=99") as error:
            world.transfer(tmp_path / "out", methods=["pemt", "control"], seeds=[1, 2], k=[99])
        assert "MixtureOutput" not in str(error.value)
    world.transfer(tmp_path / "out", max_steps=1)


def test_a_failed_preparation_keeps_the_data_that_was_whole(
    tmp_path: Path, datasets_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soak.pipeline import contents

    from pemt_core.settings import load_settings
    from pemt_core.steps.plan import make_plan

    file = tmp_path / "own.csv"
    file.write_text("text,label\n" + "".join(f"row {n},{('red', 'blue')[n % 2]}\n" for n in range(40)))
    entry = {
        "files": {"train": str(file)}, "text": {"text": "text"}, "target": "label", "labels": ["red", "blue"],
        "description": "Decide which colour it is.", "metrics": ["accuracy"],
    }  # fmt: skip
    settings = {"tasks": {"sources": ["sst2"], "targets": ["own"]}, "own_tasks": {"own": entry}}
    small = {"prepare": {"max_rows": {"train": 40, "validation": 8, "test": 8}, "corpus_rows_per_task": 20}}
    params = write_params(tmp_path / "params.yaml", settings, small)
    make_plan(load_settings(params), tmp_path).write(tmp_path / "plan")
    monkeypatch.chdir(REPOSITORY)
    words = ["--settings", tmp_path / "plan/prepare.json", "--output", tmp_path / "data"]
    words += ["--provenance", tmp_path / "provenance.json"]
    assert run_here(monkeypatch, "prepare", *words) == ""
    before = contents(tmp_path / "data")
    file.write_bytes(file.read_bytes() + b"a \xed\xa0\x80 row,red\n")
    error = run_here(monkeypatch, "prepare", *words)
    assert error.startswith("error: ")
    assert "own.csv, line 42" in error
    assert contents(tmp_path / "data") == before


def test_dvc_keeps_the_data_until_it_is_replaced() -> None:
    """DVC deletes other outputs before a stage runs."""
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    kept = [out for out in stages["prepare"]["outs"] if isinstance(out, dict)]
    assert {"data": {"persist": True}} in kept


def test_tracking_takes_a_folder_with_any_name(tmp_path: Path) -> None:
    """`%20` and `?` mean something else in an address."""
    from pemt_core.tracking import connect

    folder = tmp_path / "a%20b?c"
    folder.mkdir()
    message = ""
    try:
        connect("sqlite:///mlflow.db", "pemt", folder, "stop")
    except PemtError as error:
        message = str(error)
    assert str(folder) in message or (folder / "mlflow.db").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a%20b?c"]
