"""Random kills of every step, which then runs again: its results equal those of an uninterrupted run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import psutil

from soak.pipeline import BEFORE, STEPS, Reference, Step, runs_of, scratch_step, step_environment
from soak.pool import generator

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")  # the program's process id is 1
HOST = (*CONTAINER, "--uts")
KINDS = ("process", "container", "hosts")
MARK = "PEMT_SOAK_TRIAL"
GRACE = 10  # seconds from SIGTERM or SIGINT to the end, and from SIGKILL to the end of all workers
LONGEST = 300  # seconds for a step on a busy machine
TRAINING = ("backbone (scratch)", "train_source@mnli", "transfer@cb", "transfer@cb --workers 2")
OTHERS = ("plan", "prepare", "backbone", "collect_experts", "evaluate", "record", "register", "report")
# `unshare` ends with 1 if its child is killed
ENDS = {signal.SIGKILL: (-signal.SIGKILL, 1), signal.SIGTERM: (143,), signal.SIGINT: (130,)}


@dataclass
class Trial:
    """One step that is killed, and what was wrong afterwards."""

    number: int
    step: str
    kind: str  # of KINDS
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    log: str = ""


@dataclass(frozen=True)
class Figures:
    """The outcome of all kills."""

    trials: Sequence[Trial]

    @property
    def failures(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.wrong]

    def __str__(self) -> str:
        def counted(word: str) -> int:
            return sum(any(word in wrong for wrong in trial.wrong) for trial in self.trials)

        def kills(*kinds: str) -> int:
            return sum(trial.kills for trial in self.trials if trial.kind in kinds)

        return (
            f"{kills(*KINDS)} kills of {len({trial.step for trial in self.trials})} steps ({kills('container')} in "
            f"containers, {kills('hosts')} of two hosts): {counted('differ')} with other results, {counted('left')} "
            f"with leftovers, {counted('orphan')} with orphans, {counted('ended')} that ended otherwise"
        )


def kill_runs(count: int, seed: int, workers: int, failures: Path) -> Figures:
    """Kill steps until `count` kills hit a running one; each is run to its end and compared."""
    with TemporaryDirectory(prefix="soak-kills-") as place:
        reference = Reference.make(Path(place) / "reference")
        start = _seconds_to_start(reference, Path(place))
        trials: list[Trial] = []
        number = 0
        with ThreadPoolExecutor(workers) as pool:
            while (missing := count - sum(trial.kills for trial in trials)) > 0:
                waiting = [pool.submit(_trial, number + n, reference, start, seed, Path(place)) for n in range(missing)]
                number += missing
                for done in as_completed(waiting):
                    trials.append(done.result())
                    _show(trials[-1], sum(t.kills for t in trials), count)
                if number > 4 * count + 10:
                    break
    _keep(trials, failures / "kills", seed)
    return Figures(trials)


def _seconds_to_start(reference: Reference, place: Path) -> float:
    """How long a step's program takes on this machine beside its work."""
    step = Step.of("collect_experts")
    folder = reference.project_before(step, place / "start")
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, *step.command], cwd=folder, env=step_environment(folder), capture_output=True, check=True
    )
    return time.monotonic() - begin


def _trial(number: int, reference: Reference, start: float, seed: int, place: Path) -> Trial:
    random = generator(seed, "kill", number)
    steps = [*TRAINING, *OTHERS]
    name = steps[number] if number < len(steps) else random.choice((*steps, *TRAINING))
    kinds = KINDS if can_unshare() else KINDS[:1]
    trial = Trial(number, name, kinds[number % len(kinds)] if number < 3 else random.choice(kinds))
    step, workers = _step(name)
    folder = reference.project_before(step, place / f"trial-{number}")
    command = [sys.executable, *step.command, *workers]
    expected = start + reference.seconds[step.name]
    attempts = _Attempts(trial, folder, command, random, expected)
    try:
        attempts.run()
        if not trial.wrong:
            _compare(trial, reference, step, folder)
    except Exception as error:
        trial.wrong.append(f"the trial itself ended with {type(error).__name__}: {error}")
    shutil.rmtree(folder, ignore_errors=True)
    return trial


def _step(name: str) -> tuple[Step, list[str]]:
    if name == scratch_step().name:
        return scratch_step(), []
    stage, _, options = name.partition(" ")
    return Step.of(stage), (options or ("--workers 1" if stage.startswith("transfer") else "")).split()


def _compare(trial: Trial, reference: Reference, step: Step, folder: Path) -> None:
    differing = reference.differences(folder)
    if differing:
        trial.wrong.append(f"files differ: {', '.join(differing[:5])}")
    left = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.name.startswith(".") and path.name.endswith((".tmp", ".old")))
        or (path.is_file() and path.relative_to(folder).match("checkpoints/*/*.safetensors"))
    ]
    if left:
        trial.wrong.append(f"left behind: {', '.join(left[:5])}")
    after = _runs_after(reference, step)
    found = runs_of(folder)
    if found != after:
        trial.wrong.append(f"runs differ: {dict(found - after)} instead of {dict(after - found)}")


def _runs_after(reference: Reference, step: Step) -> Counter[tuple[str, str]]:
    """The runs in the store when the next step began."""
    order = [*STEPS, scratch_step().name]
    place = order.index(step.name) + 1
    return runs_of(reference.folder / BEFORE / order[place] if place < len(order) else reference.folder)


class _Attempts:
    """The runs of one trial: some are killed, the last one must succeed."""

    def __init__(self, trial: Trial, folder: Path, command: list[str], random: Random, expected: float) -> None:
        self.trial, self.folder, self.command, self.random, self.expected = trial, folder, command, random, expected
        self.runs = 0
        self.wrapper = {"process": (), "container": CONTAINER, "hosts": HOST}[trial.kind]

    def run(self) -> None:
        if self.trial.kind == "hosts":
            self._two_hosts()
        else:
            for _ in range(self.random.choice((1, 1, 1, 2))):
                self._killed()
        process = self._start()
        self._end(process, LONGEST)
        if process.returncode != 0:
            self.trial.wrong.append(f"the run after it ended with {process.returncode}")
        self._check_orphans()

    def _two_hosts(self) -> None:
        """Two hosts with process ids and names of their own run the step in one folder; one of them is killed."""
        first = self._start()
        time.sleep(self.random.uniform(0, 0.7) * self.expected)
        second = self._start()
        time.sleep(self.random.uniform(0.1, 0.9) * self.expected)
        killed, other = (first, second) if self.random.random() < 0.5 else (second, first)
        if killed.poll() is None:
            self.trial.kills += 1
            _send(killed, signal.SIGKILL)
        for process in (killed, other):
            self._end(process, LONGEST)
        text = self.trial.log.rpartition("== ")[2]
        if other.returncode not in (0, 1) or (other.returncode == 1 and "error: " not in text):
            self.trial.wrong.append(f"the other host's run ended with {other.returncode}")

    def _killed(self) -> None:
        number = self.random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        low = 0.2 if number == signal.SIGKILL else 0.75  # the handlers of a step are not there at once
        process = self._start()
        time.sleep(self.random.uniform(low, 1.05) * self.expected)
        if process.poll() is None:
            self.trial.kills += 1
            _send(process, number)
        begin = time.monotonic()
        self._end(process, GRACE + 5)
        if process.returncode not in (0, *ENDS[number]):
            self.trial.wrong.append(f"{number.name}: ended with {process.returncode}")
        if time.monotonic() - begin > GRACE:
            self.trial.wrong.append(f"{number.name}: ended after {time.monotonic() - begin:.0f} s")
        self._check_orphans()

    def _start(self) -> subprocess.Popen[str]:
        number, self.runs = self.runs, self.runs + 1
        output = (self.folder / f".output-{number}").open("w+")
        self.trial.log += f"== run {number}\n"
        process = subprocess.Popen(
            [*self.wrapper, *self.command], cwd=self.folder, stdout=output, stderr=output, text=True,
            env={**step_environment(self.folder), MARK: f"{os.getpid()}-{self.trial.number}"}, start_new_session=True,
        )  # fmt: skip
        process.soak_output = output  # type: ignore[attr-defined]
        return process

    def _end(self, process: subprocess.Popen[str], seconds: float) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.trial.wrong.append(f"had not ended after {seconds} s")
            _send(process, signal.SIGKILL)
            process.wait()
        output = process.soak_output  # type: ignore[attr-defined]
        output.seek(0)
        text = output.read()
        output.close()
        self.trial.log += f"== exit code {process.returncode}\n{text[-3_000:]}\n"
        if "Traceback" in text:
            self.trial.wrong.append("ended with a traceback")

    def _check_orphans(self) -> None:
        deadline = time.monotonic() + GRACE
        while (orphans := _marked(f"{os.getpid()}-{self.trial.number}")) and time.monotonic() < deadline:
            time.sleep(0.2)
        if orphans:
            self.trial.wrong.append(f"orphans: {[process.pid for process in orphans]}")
            for process in orphans:
                process.kill()


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to the program, which may be a child of `unshare`."""
    if process.args[0] != CONTAINER[0]:  # type: ignore[index]
        process.send_signal(number)
        return
    for child in psutil.Process(process.pid).children():
        child.send_signal(number)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes of a trial that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def can_unshare() -> bool:
    return subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0


def _show(trial: Trial, kills: int, count: int) -> None:
    problems = f": {'; '.join(trial.wrong)}" if trial.wrong else ""
    print(f"kills: {kills} of {count}, {trial.step} ({trial.kind}){problems}", flush=True)


def _keep(trials: Sequence[Trial], folder: Path, seed: int) -> None:
    for trial in trials:
        if trial.wrong:
            folder.mkdir(parents=True, exist_ok=True)
            head = f"seed {seed}, trial {trial.number}, {trial.step}, {trial.kind}: {'; '.join(trial.wrong)}\n"
            (folder / f"{trial.number}.txt").write_text(head + trial.log)
