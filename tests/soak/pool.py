"""Cases in worker processes: one that takes too long or dies costs its worker, and is recorded like any failure."""

import faulthandler
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

LIMIT = 10  # seconds for a case
MOST_MEMORY = 8 * 2**30  # bytes of addresses that a worker may add
PROGRESS = 10  # seconds between lines

Clock = Callable[[], None]  # a call gives the case its whole time again
Trial = Callable[[int, Clock], str]  # the number of a case to its outcomes; any exception is a failure


@dataclass(frozen=True)
class Failure:
    """A case that did not end as documented."""

    number: int
    kind: str  # "hang", "crash", or the exception's type and place
    details: str


def run_cases(
    trial: Trial, numbers: Sequence[int], workers: int, folder: Path, title: str
) -> tuple[Counter[str], list[Failure]]:
    """Run every case in one of `workers` processes; returns the number of cases by outcome, and the failures."""
    folder.mkdir(parents=True, exist_ok=True)
    shares = [_Share(trial, list(numbers[part::workers]), folder / f"log-{part}") for part in range(workers)]
    begin = shown = time.monotonic()
    while any(share.is_running() for share in shares):
        time.sleep(0.05)
        if time.monotonic() - shown > PROGRESS:
            shown = time.monotonic()
            done, failed = sum(share.done.value for share in shares), sum(share.failed.value for share in shares)
            print(f"{title}: {done:,} of {len(numbers):,}, {failed} failed, {shown - begin:.0f} s", flush=True)
    outcomes = [outcome for share in shares for outcome in share.outcomes.read_text().split()]
    failures = [Failure(**json.loads(line)) for share in shares for line in share.log.read_text().splitlines()]
    return Counter(outcomes), failures


class _Share:
    """The cases of one worker, which is started again behind a case that it did not survive."""

    def __init__(self, trial: Trial, numbers: list[int], log: Path) -> None:
        context = multiprocessing.get_context("fork")
        self.trial, self.numbers, self.log, self.outcomes = trial, numbers, log, log.with_suffix(".outcomes")
        for path in (self.log, self.outcomes):
            path.write_text("")
        self.done, self.failed = context.Value("q", 0), context.Value("q", 0)
        self._context = context
        self._start()

    def is_running(self) -> bool:
        """Whether cases are left."""
        if self._process.is_alive():
            return True
        self._process.join()
        if self._process.exitcode == 0:
            return False
        trace = self.log.with_suffix(".trace")
        text = trace.read_text() if trace.exists() else ""
        kind = "hang" if "Timeout" in text else f"crash, exit code {self._process.exitcode}"
        _append(self.log, vars(Failure(self.numbers[self.done.value], kind, text[:4_000])))
        self.failed.value += 1
        self.done.value += 1
        self._start()
        return True

    def _start(self) -> None:
        self._process = self._context.Process(target=self._work, daemon=True)
        self._process.start()

    def _work(self) -> None:
        soft = _address_space() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        os.dup2(sys.stderr.fileno(), 2)
        with self.log.with_suffix(".trace").open("w") as trace, self.outcomes.open("ab", buffering=0) as outcomes:
            while self.done.value < len(self.numbers):
                number = self.numbers[self.done.value]
                clock = partial(faulthandler.dump_traceback_later, LIMIT, exit=True, file=trace)
                clock()
                try:
                    outcomes.write(f"{self.trial(number, clock)}\n".encode())
                except Exception as error:
                    self.failed.value += 1
                    details = "".join(traceback.format_exception(error, limit=-12))[-4_000:]
                    _append(self.log, vars(Failure(number, kind_of(error), details)))
                faulthandler.cancel_dump_traceback_later()
                self.done.value += 1


def kind_of(error: BaseException) -> str:
    """The type of an error and the last place of the product in its traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/pemt_core/" in f.filename]
    place = f"{frames[-1].filename.rpartition('/pemt_core/')[2]}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {place}"


def generator(seed: int, *names: Any) -> Random:
    """A random generator for one case, independent of all others."""
    return Random("/".join(map(str, (seed, *names))))


def _append(path: Path, values: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
