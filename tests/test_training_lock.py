"""One process at a time trains the same thing, and a process that was killed leaves no obstacle."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from test_interruption import wait_for
from tiny import World

from pemt_core.errors import ArtifactError, TrainingError
from pemt_core.training import lock
from pemt_core.training.lock import FILE, training_lock

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def hold(folder: Path) -> None:
    with training_lock(folder):
        time.sleep(60)


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process holds the lock; yields its id."""
    process = multiprocessing.get_context("fork").Process(target=hold, args=(folder,))
    process.start()
    wait_for(lambda: (folder / FILE).exists() and (folder / FILE).read_text(), process)
    try:
        yield process.pid or 0
    finally:
        process.kill()
        process.join()


def test_the_second_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "key"
    with held(folder) as pid, pytest.raises(TrainingError) as caught, training_lock(folder):
        pass
    holder = rf"pid {pid} on {socket.gethostname()}, since \d{{4}}-.*"
    expected = rf"{folder}: another process is training this \({holder}\); wait for it or stop it"
    assert re.fullmatch(expected, str(caught.value))
    assert (folder / FILE).exists()  # of the process that was killed
    with training_lock(folder):
        assert json.loads((folder / FILE).read_text())["pid"] == os.getpid()
    assert not folder.exists()


def test_a_checkpoint_stays_and_a_removed_folder_is_no_error(tmp_path: Path) -> None:
    with training_lock(tmp_path / "kept"):
        (tmp_path / "kept" / "state").touch()
    with training_lock(tmp_path / "removed"):
        shutil.rmtree(tmp_path / "removed")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("kept"), Path("kept/state")]


def test_a_lock_on_a_removed_file_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes its file between this process's opening and locking it."""
    folder, flock, opened = tmp_path / "key", fcntl.flock, []

    def after_removal(file: object, operation: int) -> None:
        if not opened:
            shutil.rmtree(folder)
        opened.append(file)
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with training_lock(folder), pytest.raises(TrainingError), training_lock(folder):
        pass
    assert len(opened) == 3


def test_a_file_system_without_locks_trains_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a file system is not to be had here."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock._warn.cache_clear()
    with caplog.at_level(logging.WARNING), training_lock(tmp_path / "a"), training_lock(tmp_path / "b"):
        pass
    assert len(caplog.records) == 1
    assert "has no locks (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "key"
    with pytest.raises(ArtifactError, match=f"{folder}: cannot be written to"), training_lock(folder):
        pass


@pytest.mark.parametrize("workers", [1, 2])
def test_a_transfer_is_refused_before_a_run_is_opened(world: World, tmp_path: Path, workers: int) -> None:
    """Another process trains one of its cells, in another output folder; once that is killed, all are trained."""
    checkpoints, changes = tmp_path / "checkpoints", {"epochs": 3, "checkpoints": tmp_path / "checkpoints"}
    first = partial(world.transfer, tmp_path / "first", seeds=[1], **changes)
    process = multiprocessing.get_context("fork").Process(target=first)
    process.start()
    wait_for(lambda: list(checkpoints.glob(f"*/{FILE}")), process)
    os.kill(process.pid or 0, signal.SIGSTOP)
    try:
        with pytest.raises(TrainingError, match=f"another process is training this .pid {process.pid} on "):
            world.transfer(tmp_path / "out", seeds=[2, 1], workers=workers, log=tmp_path / "log", **changes)
    finally:
        process.kill()
        process.join()
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "out").exists()
    world.transfer(tmp_path / "out", seeds=[2, 1], workers=workers, **changes)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert list(checkpoints.iterdir()) == []
