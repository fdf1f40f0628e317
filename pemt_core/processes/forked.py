"""Calls in single-threaded worker processes, forked from a process that has loaded everything.

The workers inherit the function that they call and all that it refers to, in memory shared until it is written to; only
arguments and answers are sent.
"""

import gc
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch
from tqdm import tqdm

from pemt_core.errors import PemtError
from pemt_core.interruption import Interrupted, become_worker, deferred, held

TOKENIZER_THREADS = "TOKENIZERS_PARALLELISM"  # the only switch that `tokenizers` has

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Done(Generic[Answer]):
    """How a call in a worker ended."""

    process: int
    grown: int  # KiB
    answer: Answer | None
    error: BaseException | None  # a tolerated one, or an interruption


class Workers(Generic[Item, Answer]):
    """Worker processes, and the calls that they are to make."""

    def __init__(self, executor: ProcessPoolExecutor, killed: PemtError) -> None:
        self._executor, self._killed = executor, killed
        self._others = set(multiprocessing.active_children())
        self._grown: dict[int, int] = {}  # process id to KiB

    def start(self, item: Item) -> "Future[Done[Answer]]":
        """Have the function called for an item. The first call forks the workers."""
        with held(), self._kills_named():
            return self._executor.submit(_call, item)

    def end(self, call: "Future[Done[Answer]]") -> Done[Answer]:
        """Wait for a call. Raises its error unless that is tolerated, and another one if a worker was killed."""
        with self._kills_named():
            done = call.result()
        self._grown[done.process] = max(done.grown, self._grown.get(done.process, 0))
        if isinstance(done.error, Interrupted):  # a signal to this worker alone
            raise done.error
        return done

    @property
    def processes(self) -> set[BaseProcess]:
        """Those that are alive."""
        return set(multiprocessing.active_children()) - self._others

    @property
    def memory_mib(self) -> int:
        """The sum of the workers' peaks, without the memory that they share with this process."""
        return round(sum(self._grown.values()) / 1024)

    @contextmanager
    def _kills_named(self) -> Iterator[None]:
        """Turn the executor's error after the death of a worker into one that says what to do."""
        try:
            yield
        except BrokenProcessPool as error:
            if error.__cause__:  # not killed: its answer was unreadable, and the cause says why
                raise
            raise self._killed from error


@contextmanager
def forked_workers(
    function: Callable[[Item], Answer], workers: int, *, killed: PemtError, tolerated: tuple[type[Exception], ...] = ()
) -> Iterator[Workers[Item, Answer]]:
    """Have `function` called in `workers` forked processes, each with one thread.

    An error of a type in `tolerated` ends one call and comes with it; any other ends all calls. If a worker is killed,
    `killed` is raised. If the block raises an error, an interruption included, the workers are killed; if this process
    dies, they end by themselves.
    """
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(function, tolerated))
    os.environ.setdefault(TOKENIZER_THREADS, "false")  # without it, `tokenizers` warns of every fork
    forked: Workers[Item, Answer] = Workers(executor, killed)
    try:
        yield forked
    except BaseException:
        for process in forked.processes:
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


_function: Callable[[Any], Any]  # of a worker
_tolerated: tuple[type[BaseException], ...]
_memory_at_start: int


def _prepare(function: Callable[[Any], Any], tolerated: tuple[type[Exception], ...]) -> None:
    """Set up a worker. It has one thread, as others do not survive a fork and OpenMP would wait for them."""
    global _function, _tolerated, _memory_at_start
    become_worker()
    gc.freeze()  # what was inherited stays, so that the collection after each call need not search it
    _function, _tolerated, _memory_at_start = function, (Interrupted, *tolerated), _peak_kib()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # the inherited one is shared with the parent, which a killed worker would block
    os.environ[TOKENIZER_THREADS] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> Done[Any]:
    answer: Any = None
    error: BaseException | None = None
    try:
        with deferred():
            answer = _function(item)
    except _tolerated as ended:
        error = ended
    return Done(os.getpid(), _peak_kib() - _memory_at_start, answer, error)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
