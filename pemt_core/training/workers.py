"""Parallel trainings on a CPU, in single-threaded processes forked from one that has loaded everything.

The number of threads changes the order in which sums are rounded, and training amplifies the difference. So the number
of threads depends on the backbone, never on what else is trained. Below `SINGLE_THREADED` parameters every training has
one thread, in this process or in a worker, and its numbers are the same for any number of workers. With a larger
backbone, trainings use all cores one after another, unless workers are asked for; then each has one thread, and its
numbers are the same for any number of workers from two. Numbers are reproducible only on equal machines and versions.
"""

import gc
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from tqdm import tqdm

from pemt_core.errors import SettingsError, TrainingError
from pemt_core.interruption import Interrupted, become_worker, deferred, held

# Parameters; on two cores, a tiny T5 trains 1.6 times as fast with two threads, twice as fast with two workers
SINGLE_THREADED = 20_000_000

TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"  # the only switch that `tokenizers` has

SAVING_SECONDS = 6.0  # after a signal: a worker's step may take 5 s to end
KEPT = "finished trainings and the last states of the others are kept: run the same command again to resume"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Schedule:
    """How many trainings run at a time, and whether each has one thread rather than torch's default."""

    workers: int
    single_threaded: bool

    @classmethod
    def make(cls, asked: int | None, num_trainings: int, num_parameters: int, accelerator: Accelerator) -> "Schedule":
        """The schedule for a backbone of `num_parameters`; if `asked` is None, as many workers as suit the machine.

        Raises SettingsError if `asked` is less than 1, or more than 1 on a GPU or under `accelerate launch`.
        """
        if asked is not None and asked < 1:
            raise SettingsError(f"workers is {asked}: expected at least 1")
        if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
            if asked not in (None, 1):
                raise SettingsError(
                    f"workers is {asked}: expected 1, as trainings take turns on a GPU or in several processes"
                )
            return cls(1, single_threaded=False)
        small = num_parameters < SINGLE_THREADED
        suitable = usable_cores() if small else 1
        workers = min(asked or suitable, max(1, num_trainings))
        return cls(workers, single_threaded=small or workers > 1)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Run the block's trainings in this process with the scheduled number of threads, then restore it."""
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
    """The number of cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count

    return int(cpu_count())


class Finished(Generic[Item]):
    """The items as they finish, in any order, with their errors; then the memory that the workers took."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor
        self.futures: dict[Future[_Done], Item] = {}
        self._grown: dict[int, int] = {}  # process id to KiB

    def add(self, items: Iterable[Item]) -> None:
        """Have the function called for more items, also while the others are iterated over."""
        with held(), _kills_named():
            self.futures |= {self._executor.submit(_call, item): item for item in items}

    def __iter__(self) -> Iterator[tuple[Item, Exception | None]]:
        """Raises any error of the function that is not `tolerated`, and TrainingError if a worker was killed."""
        seen: set[Future[_Done]] = set()
        while left := self.futures.keys() - seen:
            for future in wait(left, return_when=FIRST_COMPLETED).done:
                seen.add(future)
                with _kills_named():
                    done = future.result()
                self._grown[done.process] = max(done.grown, self._grown.get(done.process, 0))
                if isinstance(done.error, Interrupted):  # a signal to this worker alone
                    raise done.error
                yield self.futures[future], done.error

    @property
    def memory_mib(self) -> int:
        """The sum of the workers' peaks, without the memory that they share with this process."""
        return round(sum(self._grown.values()) / 1024)


@contextmanager
def _kills_named() -> Iterator[None]:
    """Turn the executor's error after the death of a worker into one that says what to do."""
    try:
        yield
    except BrokenProcessPool as error:
        if error.__cause__:  # not killed: its answer was unreadable, and the cause says why
            raise
        raise TrainingError(
            "a worker was killed, perhaps for lack of memory; its last checkpoint is kept. Ask for fewer workers"
        ) from error


class _Done(NamedTuple):
    """How a worker's call ended."""

    process: int
    grown: int  # KiB
    error: Exception | Interrupted | None


@contextmanager
def forked_workers(
    function: Callable[[Item], Any], items: Sequence[Item], workers: int, tolerated: type[Exception]
) -> Iterator[Finished[Item]]:
    """Call `function` once per item in `workers` forked processes, without its return values.

    An error of the type `tolerated` ends one call and comes with its item; any other error ends all calls.

    The workers inherit the function and all that it refers to, in memory shared until written to; only the items are
    sent. If the block is interrupted, the calls are interrupted too, and the workers end soon; if it raises an error,
    they are killed; if this process dies, they end by themselves.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(function, tolerated))
    os.environ.setdefault(TOKENIZER_THREADS, "false")  # without it, `tokenizers` warns of every fork
    finished: Finished[Item] = Finished(executor)
    try:
        finished.add(items)
        yield finished
    except BaseException as error:
        workers_left = set(multiprocessing.active_children()) - others
        try:
            if isinstance(error, Interrupted):
                _interrupt(workers_left, finished.futures)
                raise Interrupted(error.number, f"{error.reason}; {KEPT}") from None
            raise
        finally:
            for process in workers_left:
                process.kill()
    finally:
        executor.shutdown(cancel_futures=True)


def _interrupt(workers: Iterable[BaseProcess], futures: Iterable[Future[Any]]) -> None:
    """Interrupt the calls that have begun, cancel the others, and wait some seconds for the states to be saved."""
    begun = [future for future in futures if not future.cancel()]
    for process in workers:
        process.terminate()
    wait(begun, timeout=SAVING_SECONDS)


_function: Callable[[Any], Any]  # of a worker
_tolerated: type[Exception]
_memory_at_start: int


def _prepare(function: Callable[[Any], Any], tolerated: type[Exception]) -> None:
    """Set up a worker. It has one thread, as others do not survive a fork and OpenMP would wait for them."""
    global _function, _tolerated, _memory_at_start
    become_worker()
    gc.freeze()  # what was inherited stays, so that the collection after each training need not search it
    _function, _tolerated, _memory_at_start = function, tolerated, _peak_kib()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # the inherited one is shared with the parent, which a killed worker would block
    os.environ[TOKENIZER_THREADS] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> _Done:
    error: Exception | Interrupted | None = None
    try:
        with deferred():
            _function(item)
    except (_tolerated, Interrupted) as ended:
        error = ended
    return _Done(os.getpid(), _peak_kib() - _memory_at_start, error)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
