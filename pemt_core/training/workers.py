"""Trainings side by side on a CPU: processes forked from one that has loaded everything, each on a single thread.

Sums are rounded in another order by another number of threads, and a training amplifies that. So the thread count
follows the backbone and never what else is trained: below `SINGLE_THREADED` parameters every training has one thread,
in this process or another, and its numbers are the same for any number of workers. A larger backbone trains on all
cores, one training after another, unless workers are asked for; then each has one thread, and its numbers are the
same for any number of workers from two. Equal numbers are promised for equal machines and versions only.
"""

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from accelerate import Accelerator

from pemt_core.errors import SettingsError, TrainingError

SINGLE_THREADED = 20_000_000  # parameters; on two cores a tiny T5 gains 1.6 times by two threads, 2 by two workers

TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"  # the only way to tell `tokenizers`

Item = TypeVar("Item")


@dataclass(frozen=True)
class Schedule:
    """How many trainings run at a time, and whether each has one thread instead of as many as torch chooses."""

    workers: int
    single_threaded: bool

    @classmethod
    def make(cls, asked: int | None, num_trainings: int, num_parameters: int, accelerator: Accelerator) -> "Schedule":
        """The schedule for a backbone of `num_parameters`; `asked` None: as many workers as suit the machine.

        SettingsError where several are asked for with a GPU or under `accelerate launch`, or less than one.
        """
        if asked is not None and asked < 1:
            raise SettingsError(f"workers is {asked}: expected a number from 1")
        if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
            if asked not in (None, 1):
                raise SettingsError(f"workers is {asked}: on a GPU, and in several processes, trainings take turns")
            return cls(1, single_threaded=False)
        small = num_parameters < SINGLE_THREADED
        suitable = usable_cores() if small else 1
        workers = min(asked or suitable, max(1, num_trainings))
        return cls(workers, single_threaded=small or workers > 1)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Trainings inside, in this process, have the scheduled number of threads; afterwards it is as before."""
        if not self.single_threaded:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def usable_cores() -> int:
    """The cores that this process may use: its affinity and its container's quota count."""
    from joblib import cpu_count

    return int(cpu_count())


class Finished(Generic[Item]):
    """The items as they finish, in any order, and their errors; afterwards how much memory the workers took."""

    def __init__(self, futures: Mapping[Future["_Done"], Item]) -> None:
        self._futures = futures
        self._grown: dict[int, int] = {}  # process id to KiB

    def __iter__(self) -> Iterator[tuple[Item, Exception | None]]:
        """Raises what the function raised, unless it was `tolerated`; TrainingError where a worker was killed."""
        try:
            for future in as_completed(self._futures):
                done = future.result()
                self._grown[done.process] = max(done.grown, self._grown.get(done.process, 0))
                yield self._futures[future], done.error
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker was killed, for want of memory perhaps; its last checkpoint is kept. Ask for fewer"
            ) from error

    @property
    def memory_mib(self) -> int:
        """What the workers took at their peaks, added up, beyond the memory that they share with this process."""
        return round(sum(self._grown.values()) / 1024)


class _Done(NamedTuple):
    """How a worker's call ended."""

    process: int
    grown: int  # KiB
    error: Exception | None


@contextmanager
def forked_workers(
    function: Callable[[Item], Any], items: Sequence[Item], workers: int, tolerated: type[Exception]
) -> Iterator[Finished[Item]]:
    """Call `function` once per item in `workers` forked processes; what it returns is left there.

    Errors of the type `tolerated` end one call and are given back; any other ends all.

    The function and all that it refers to are not sent but inherited, memory shared until written to; items are
    sent. Where the block is left by an error the processes are killed, and they end themselves where this one dies.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(function, tolerated))
    os.environ.setdefault(TOKENIZER_THREADS, "false")  # where it is not set `tokenizers` warns of every fork
    try:
        futures = {executor.submit(_call, item): item for item in items}
        yield Finished(futures)
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


_function: Callable[[Any], Any]  # of a worker
_tolerated: type[Exception]
_memory_at_start: int


def _prepare(function: Callable[[Any], Any], tolerated: type[Exception]) -> None:
    """What a worker does first. One thread: no others survive a fork, and OpenMP would wait for them."""
    global _function, _tolerated, _memory_at_start
    _function, _tolerated, _memory_at_start = function, tolerated, _peak_kib()
    torch.set_num_threads(1)
    os.environ[TOKENIZER_THREADS] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent answers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> _Done:
    error = None
    try:
        _function(item)
    except _tolerated as tolerated:
        error = tolerated
    return _Done(os.getpid(), _peak_kib() - _memory_at_start, error)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
