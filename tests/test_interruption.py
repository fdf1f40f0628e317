"""SIGINT and SIGTERM to real processes: how they end, what they leave, and that a resumed result has the same bytes."""

import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import test_backbone
from source_code import REPOSITORY
from test_components import free_port, tracking_in
from test_training import Line, Points, trainer
from tiny import World, logging_runs, source_settings, transfer_text
from tqdm import tqdm

from pemt_core import interruption
from pemt_core.artifacts.files import atomic_directory, atomic_file
from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted, deferred, last_words, stoppable
from pemt_core.settings import EvaluateSettings
from pemt_core.settings.steps import TrainSource, as_text
from pemt_core.steps import evaluate
from pemt_core.steps.backbone import make_backbone
from pemt_core.training.course import Evaluation

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

LONG: dict[str, Any] = {
    "epochs": 10,
    "evaluate_every": 7,
    "checkpoint_every": 1000,
}  # 60 steps; no checkpoint but the last
HINT = "run the same command again to resume"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def leftovers(folder: Path) -> list[str]:
    """Hidden files, which only unfinished writes leave, and locks."""
    return [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.name == "lock"]


def run_program(function: Callable[[], Any], said: Path) -> None:
    """What a program does with its step; torch is loaded already. Programs do not share the lock of progress bars."""
    tqdm.set_lock(threading.RLock())
    with stoppable(lambda stopped: said.write_text(str(stopped)) and None):
        function()


def forked(function: Callable[[], Any], said: Path) -> BaseProcess:
    """Start a program as a process of its own, forked from this one."""
    process = multiprocessing.get_context("fork").Process(target=run_program, args=(function, said))
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The exit code of a process that a signal has reached, and which has ended within ten seconds."""
    begin = time.monotonic()
    process.join(30)
    assert time.monotonic() - begin < 10
    assert process.exitcode is not None
    return process.exitcode


def wait_for(condition: Callable[[], Any], process: Any = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or psutil.pid_exists(process.pid)
        time.sleep(0.01)


# --- trainings


def train_source(world: World, folder: Path) -> None:
    world.train_source(folder / "out", log=folder / "log.jsonl", **LONG)


def transfer(workers: int, world: World, folder: Path) -> None:
    seeds = list(range(1, workers + 2))  # workers log a training when it ends; another is then left
    world.transfer(folder / "out", log=folder / "log.jsonl", workers=workers, **LONG, seeds=seeds)


def backbone(world: World, folder: Path) -> None:
    training = {"max_steps": 30, "batch_size": 8, "warmup_steps": 0, "evaluate_every": 7, "checkpoint_every": 1000}
    make_backbone(
        test_backbone.settings(length=32, training=training),
        tokenizer_dir=world.folder / "tokenizer",
        corpus_path=world.folder / "corpus.parquet",
        output_dir=folder / "out",
        checkpoint_dir=folder / "checkpoints",
        open_run=logging_runs(folder / "log.jsonl"),
    )


STAGES: dict[str, Callable[[World, Path], None]] = {
    "train_source": train_source,
    "transfer": partial(transfer, 1),
    "transfer, 2 workers": partial(transfer, 2),
    "backbone": backbone,
}


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What every stage writes without an interruption."""
    folders = {name: tmp_path_factory.mktemp("whole") for name in STAGES}
    for name, stage in STAGES.items():
        stage(world, folders[name])
    return folders


@pytest.mark.parametrize(
    ("stage", "number"), list(zip(STAGES, [signal.SIGTERM, signal.SIGINT] * 2, strict=True)), ids=list(STAGES)
)
def test_an_interrupted_training_resumes_exactly(
    world: World, tmp_path: Path, whole: dict[str, Path], stage: str, number: signal.Signals
) -> None:
    """Signals at random moments, until the training finishes; no state is saved but by the signals."""
    step, said, log, saved = partial(STAGES[stage], world, tmp_path), tmp_path / "said", tmp_path / "log.jsonl", 0
    log.touch()
    for _ in range(2):
        process, seen = forked(step, said), log.stat().st_size
        wait_for(lambda process=process, seen=seen: not process.is_alive() or log.stat().st_size > seen)
        process.join(random.uniform(0, 0.15))
        if not process.is_alive():
            break
        workers = psutil.Process(process.pid).children()
        os.kill(process.pid or 0, number)
        if ended(process) == 0:  # the last step was done
            break
        saved += 1
        assert process.exitcode == 128 + number
        assert said.read_text().endswith(HINT)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
        assert leftovers(tmp_path) == []
    step()
    assert saved
    assert files(tmp_path / "out") == files(whole[stage] / "out")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name != "finished"] == []


class Signalling(Points):
    """Rows that send this process a signal as the batch of `at_step` is made."""

    at_step = 0
    made = 0

    def collate(self, rows: Any, epoch: int) -> Any:
        self.made += 1
        if self.made == self.at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().collate(rows, epoch)


def fit(folder: Path, at_step: int, evaluate: Callable[[], Evaluation] | None = None) -> None:
    data = Signalling.make(48, 4)
    data.at_step = at_step
    state = trainer(Line(), data, folder, evaluate, epochs=3, evaluate_every=8, checkpoint_every=1000).fit()
    (folder / "history").write_text(json.dumps([state.history, state.best_tensors["weight"].tolist()]))


@pytest.mark.parametrize("step", [1, 7, 8, 10, 23, 36])
def test_the_state_is_saved_after_the_step_in_which_the_signal_came(tmp_path: Path, step: int) -> None:
    """Before, at and between the steps whose losses are read; the history does not show the interruption."""
    for name, at_step in (("cut", step), ("cut", 0), ("whole", 0)):
        process = forked(partial(fit, tmp_path / name, at_step), tmp_path / f"said {at_step}")
        (tmp_path / name).mkdir(exist_ok=True)
        assert ended(process) == (128 + signal.SIGTERM if at_step else 0)
    said = (tmp_path / f"said {step}").read_text()
    if step < 36:
        assert said == f"line: stopped by SIGTERM after step {step} of 36; the state is saved: {HINT}"
    assert (tmp_path / "cut" / "history").read_bytes() == (tmp_path / "whole" / "history").read_bytes()


def evaluation(seconds: float = 0.0) -> Evaluation:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    return Evaluation(1.0, {"validation/score": 1.0})


def test_an_evaluation_ends_first(tmp_path: Path) -> None:
    assert ended(forked(partial(fit, tmp_path, 0, evaluation), tmp_path / "said")) == 143
    assert "after step 8 of 36; the state is saved" in (tmp_path / "said").read_text()


def test_an_evaluation_that_takes_long_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "DEFERRED_SECONDS", 0.2)
    process = forked(partial(fit, tmp_path, 0, partial(evaluation, 8.0)), tmp_path / "said")
    begin = time.monotonic()
    assert ended(process) == 143
    assert time.monotonic() - begin < 4
    assert "there is no checkpoint yet: the same command starts again" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_evaluation_keeps_the_cells_that_it_has_scored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The signal comes as the third cell is answered, after the first in one process, or one of two in two workers."""
    world.transfer(tmp_path / "gamma", seeds=[1, 2, 3], max_steps=1, checkpoints=tmp_path / "checkpoints")
    settings = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)
    folders = [world.folder / name for name in ("data", "backbone", "experts")]
    calls, predict = tmp_path / "calls", evaluate.predict

    def step(program: int) -> list[str]:
        def interrupted(*arguments: Any, **options: Any) -> Any:
            with calls.open("a") as file:
                file.write("x")
            if calls.stat().st_size == 3:
                os.kill(program or os.getpid(), signal.SIGTERM)
            return predict(*arguments, **options)

        monkeypatch.setattr(evaluate, "predict", interrupted)
        return evaluate.evaluate(
            {"gamma": tmp_path / "gamma"}, *folders, settings, output_dir=tmp_path / "scores", workers=workers
        )

    process = forked(lambda: step(os.getpid()), tmp_path / "said")
    assert ended(process) == 143
    first = files(tmp_path / "scores")
    scored = {Path(name).parent.name for name in first if not name.split("/")[1].startswith(".")}
    assert len(scored) >= 1
    assert {f"pemt-kfull-seed{seed}" for seed in (1, 2, 3)} > scored
    assert {name.partition("/")[2] for name in step(0)} == {f"pemt-kfull-seed{seed}" for seed in (1, 2, 3)} - scored
    assert leftovers(tmp_path) == []
    whole = files(tmp_path / "scores")
    assert all(whole[name] == content for name, content in first.items() if name.split("/")[1] in scored)


# --- any program


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_file(tmp_path / "a" / "file") as file, atomic_directory(tmp_path / "a" / "folder") as folder:
            file.write_text("half")
            (folder / "part").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    assert ended(forked(write, tmp_path / "said")) == 143
    assert (tmp_path / "said").read_text() == "stopped by SIGTERM: run the same command again to resume"
    assert list((tmp_path / "a").iterdir()) == []


def test_a_program_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception is swallowed, as by a callback of a library."""
    monkeypatch.setattr(interruption, "TIDY_SECONDS", 0.3)

    def stubborn() -> None:
        with last_words(lambda: (tmp_path / "words").touch()):
            (tmp_path / "started").touch()
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    continue

    process = forked(stubborn, tmp_path / "said")
    wait_for((tmp_path / "started").exists)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert ended(process) == 143
    assert (tmp_path / "words").exists()
    assert "stopped by SIGTERM" in (tmp_path / "said").read_text()


def test_an_error_that_a_library_made_of_the_interruption_is_one(tmp_path: Path) -> None:
    def converting() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("could not load") from error

    assert ended(forked(converting, tmp_path / "said")) == 130


def test_only_a_second_request_cuts_short_what_puts_the_end_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two signals at once are one request: a terminal and a parent may both send one."""
    monkeypatch.setattr(interruption, "ONE_REQUEST_SECONDS", 0.3)

    def patient() -> None:
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "first").touch()
            time.sleep(0.4)
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "second").touch()

    assert ended(forked(patient, tmp_path / "said")) == 130
    assert (tmp_path / "first").exists()
    assert not (tmp_path / "second").exists()


def test_a_failing_training_does_not_hide_the_signal(tmp_path: Path) -> None:
    def failing() -> None:
        try:
            with deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                raise TrainingError("diverged")
        except TrainingError:
            (tmp_path / "went on").touch()

    assert ended(forked(failing, tmp_path / "said")) == 143
    assert not (tmp_path / "went on").exists()


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    """As for the background jobs of a script."""

    def background() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = forked(background, tmp_path / "said")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended(process) == 0


def test_python_handles_signals_again_after_a_program() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with stoppable(), pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


# --- whole programs, with tracking


def program(world: World, step: str, folder: Path, settings: str, data: str, *more: object) -> subprocess.Popen[str]:
    """Start a program that trains, as the leader of a process group."""
    values: dict[str, object] = {
        "settings": settings,
        "tracking": tracking_in(folder),
        "provenance": folder / "provenance.json",
        "data": world.folder / "data" / data,
        "backbone": world.folder / "backbone",
        "output": folder / "out",
        "checkpoints": folder / "checkpoints",
    }
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
        [sys.executable, "-m", f"components.{step}", *words, *map(str, more)],
        cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def runs(folder: Path) -> list[str]:
    """The states of the runs that are not deleted."""
    if not (folder / "mlflow.db").exists():
        return []
    with sqlite3.connect(folder / "mlflow.db") as database:
        query = "SELECT status FROM runs WHERE lifecycle_stage = 'active'"
        return [status for (status,) in database.execute(query)]


def check_stopped(process: subprocess.Popen[str], code: int) -> str:
    """Check that a program has ended as it should, with all its processes; return its last line."""
    begin = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert [each.pid for each in psutil.process_iter() if os.getsid(each.pid) == process.pid] == []
    return errors.strip().splitlines()[-1]


def source_text(**changes: Any) -> str:
    settings = source_settings(**{**LONG, "epochs": 100_000, **changes})
    return as_text(TrainSource(source="alpha", train_source=settings, answer="generate", code=""))


@pytest.mark.slow
def test_a_stopped_program_marks_its_run_and_says_how_to_continue(world: World, tmp_path: Path) -> None:
    process = program(world, "train_source", tmp_path, source_text(), "alpha")
    wait_for(lambda: runs(tmp_path) == ["RUNNING"], process)
    time.sleep(random.uniform(0.5, 1))
    process.send_signal(signal.SIGTERM)
    line = check_stopped(process, 143)
    saved = rf"train_source alpha: stopped by SIGTERM after step \d+ of \d+; the state is saved: {HINT}"
    assert re.fullmatch(saved, line), line
    assert runs(tmp_path) == ["KILLED"]
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == [".mlflow.db.lock"]
    assert len(list((tmp_path / "checkpoints").glob("*/state.safetensors"))) == 1


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_stops_a_transfer_with_its_workers(world: World, tmp_path: Path) -> None:
    """The terminal sends the signal to all processes."""
    settings = transfer_text(**{**LONG, "epochs": 100_000}, seeds=[1, 2, 3])
    process = program(world, "transfer", tmp_path, settings, "", "--experts", world.folder / "experts", "--workers", 2)
    wait_for(lambda: runs(tmp_path) == ["RUNNING"] * 3, process)
    time.sleep(random.uniform(0, 1))
    os.killpg(process.pid, signal.SIGINT)
    line = check_stopped(process, 130)
    assert line.startswith("stopped by SIGINT; ")
    assert line.endswith(HINT)
    assert runs(tmp_path) == ["KILLED"] * 3
    assert leftovers(tmp_path) == [".mlflow.db.lock"]
    assert len(list((tmp_path / "checkpoints").glob("*/state.safetensors"))) == 2


@pytest.mark.slow
def test_several_processes_stop_with_the_one_that_started_them(world: World, tmp_path: Path) -> None:
    """Processes that share a training keep their last checkpoint; torch's launcher prints no traceback."""
    settings = source_text(checkpoint_every=2)
    process = program(world, "train_source", tmp_path, settings, "alpha", "--processes", 2)
    children = psutil.Process(process.pid)
    wait_for(lambda: list((tmp_path / "checkpoints").glob("*/state.safetensors")), process)
    started = children.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    line = check_stopped(process, 143)
    assert "stopped by SIGTERM" in line
    assert "is kept: run the same command again to resume" in line or "is saved" in line
    assert psutil.wait_procs(started, timeout=5)[1] == []
    assert runs(tmp_path) == ["KILLED"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_server_ends_with_its_command(tmp_path: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "components.cli", "ui", "--store", str(tmp_path), "--port", str(free_port())]
    process = subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parent = psutil.Process(process.pid)
    wait_for(lambda: parent.children(recursive=True), process)
    servers = parent.children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert psutil.wait_procs(servers, timeout=5)[1] == []
