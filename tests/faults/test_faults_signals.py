"""Signals to a training, and the same training twice."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from soak.pipeline import contents
from source_code import REPOSITORY
from test_components import component, transfer_arguments
from tiny import World, transfer_text

GRACE = 10  # seconds: what Kubernetes waits for by default is three times as long
LONG = {"epochs": 4_000, "checkpoint_every": 20, "evaluate_every": 10_000}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start_long(world: World, folder: Path, workers: int = 1) -> subprocess.Popen[str]:
    """Start a training of minutes, and wait for its first state."""
    settings = transfer_text(seeds=[1, 2], **LONG)
    words = [*transfer_arguments(world, folder, settings=settings), "--workers", workers]
    command = [sys.executable, "-m", "components.transfer", *map(str, words)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((folder / "checkpoints").glob("*/*.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def statuses(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "mlflow.db") as store:
        found = [row[0] for row in store.execute("select status from runs where lifecycle_stage = 'active'")]
    store.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2)])
def test_a_signal_ends_a_training_in_order(
    world: World,
    tmp_path: Path,
    processes: list[subprocess.Popen[str]],
    number: signal.Signals,
    code: int,
    workers: int,
) -> None:
    process = start_long(world, tmp_path, workers)
    processes.append(process)
    children = psutil.Process(process.pid).children(recursive=True)
    if workers == 1:
        settings = transfer_text(seeds=[1, 2], **LONG)
        twice = component("transfer", *transfer_arguments(world, tmp_path, settings=settings), "--workers", 1)
        assert twice.returncode == 1
        assert "another process is training this" in twice.stderr.splitlines()[-1]
        assert str(process.pid) in twice.stderr.splitlines()[-1]
        assert "Traceback" not in twice.stderr
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < GRACE
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert "again" in errors or "resume" in errors or "go on" in errors or "continue" in errors
    assert set(statuses(tmp_path)) == {"KILLED"}
    assert [path for path in contents(tmp_path / "adapters") if path.endswith(".tmp")] == []
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert list((tmp_path / "checkpoints").glob("*/*.safetensors"))
