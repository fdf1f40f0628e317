"""Parallel trainings on a CPU, in forked worker processes; `pemt_core.processes.schedule` says how many, and why.

Workers leave their results in checkpoints, and never hold a tracking store.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted, held
from pemt_core.processes.forked import Done, Workers, forked_workers

MEANWHILE_SECONDS = 1.0
SAVING_SECONDS = 6.0  # after a signal: a worker's step may take 5 s to end
KEPT = "finished trainings and the last states of the others are kept: run the same command again to resume"
KILLED = "a worker was killed, perhaps for lack of memory; its last checkpoint is kept. Ask for fewer workers"

Item = TypeVar("Item")


class Finished(Generic[Item]):
    """The trainings as they finish, in any order, with their errors."""

    def __init__(self, workers: Workers[Item, Any], meanwhile: Callable[[], object]) -> None:
        self._workers, self._meanwhile = workers, meanwhile
        self.futures: dict[Future[Done[Any]], Item] = {}

    def add(self, items: Iterable[Item]) -> None:
        """Have the function called for more items, also while the others are iterated over."""
        with held():
            self.futures |= {self._workers.start(item): item for item in items}

    def __iter__(self) -> Iterator[tuple[Item, TrainingError | None]]:
        """Raises any error of the function that is not a TrainingError, and TrainingError if a worker was killed."""
        seen: set[Future[Done[Any]]] = set()
        while left := self.futures.keys() - seen:
            ended = wait(left, timeout=MEANWHILE_SECONDS, return_when=FIRST_COMPLETED).done
            self._meanwhile()
            for future in ended:
                seen.add(future)
                error = self._workers.end(future).error
                assert error is None or isinstance(error, TrainingError)  # the only one tolerated
                yield self.futures[future], error

    @property
    def memory_mib(self) -> int:
        """The sum of the workers' peaks, without the memory that they share with this process."""
        return self._workers.memory_mib

    def interrupt(self) -> None:
        """Interrupt the calls that have begun, cancel the others, and wait some seconds for the states to be saved."""
        begun = [future for future in self.futures if not future.cancel()]
        for process in self._workers.processes:
            process.terminate()
        wait(begun, timeout=SAVING_SECONDS)


@contextmanager
def forked_trainings(
    function: Callable[[Item], None],
    items: Sequence[Item],
    workers: int,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[Finished[Item]]:
    """Call `function` once per item in `workers` forked processes; a TrainingError ends one call, other errors all.

    If the block is interrupted, the calls are interrupted too, and save their states. While the results are awaited,
    `meanwhile` is called about once a second, as to show progress.
    """
    killed = TrainingError(KILLED)
    with forked_workers(function, workers, killed=killed, tolerated=(TrainingError,)) as forked:
        finished: Finished[Item] = Finished(forked, meanwhile)
        try:
            finished.add(items)
            yield finished
        except Interrupted as stopped:
            finished.interrupt()
            raise Interrupted(stopped.number, f"{stopped.reason}; {KEPT}") from None
